"""What a decoder remembers between the words of a sentence."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class DecoderCache:
    """Keys and values of one decoding run.

    Cross-attention is kept once an image; self-attention once a beam, and moves with the beams.

    Attributes:
        cross: Keys and values of the image tokens, (B, H, L, d) each, a layer an entry.
        mask: (B, 1, 1, L) bool, True for image tokens that may be attended to.
        words: Keys and values of the words so far, (B * W, H, t, d) each, a layer an entry; empty
            before the first word.
    """

    cross: list[tuple[Tensor, Tensor]]
    mask: Tensor
    words: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Number of words seen so far."""
        return self.words[0][0].shape[2] if self.words else 0

    def reorder(self, parents: Tensor) -> None:
        """Continue each beam from one of the beams of the step before.

        Args:
            parents: (B, W) int64, beam indices within each image; W may differ from before.
        """
        batch_size = len(parents)
        width = len(self.words[0][0]) // batch_size
        first = torch.arange(batch_size, device=parents.device).unsqueeze(1) * width
        rows = (first + parents).flatten()
        self.words = [
            (keys.index_select(0, rows), values.index_select(0, rows))
            for keys, values in self.words
        ]

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add a word's keys and values to a layer.

        Args:
            layer: Which layer; the layers of a word come in their order.
            keys: (B * W, H, 1, d).
            values: (B * W, H, 1, d).

        Returns:
            Keys and values of all words so far, (B * W, H, t, d) each.
        """
        if layer == len(self.words):
            self.words.append((keys, values))
        else:
            past_keys, past_values = self.words[layer]
            self.words[layer] = (
                torch.cat([past_keys, keys], dim=2),
                torch.cat([past_values, values], dim=2),
            )
        return self.words[layer]
