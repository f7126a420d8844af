"""Sentences of several lengths without their padding."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Where the n words of B sentences stand among (B, T) places.

    All that works on a word alone does so on (n, D); attention needs the padded form.

    Attributes:
        shape: B and T.
        places: (n,) int64, ascending, indices into the B * T places.
    """

    shape: tuple[int, int]
    places: Tensor

    @classmethod
    def of(cls, lengths: Tensor, longest: int, device: torch.device) -> "Rows":
        """Words first, padding after them.

        Args:
            lengths: (B,) int64, words a sentence; from the CPU, where that is not waited for.
            longest: T.
            device: Where the words are.
        """
        is_word = torch.arange(longest, device=lengths.device) < lengths.unsqueeze(1)
        places = is_word.flatten().nonzero().squeeze(1)
        return cls((len(lengths), longest), places.to(device, non_blocking=True))

    def pack(self, padded: Tensor) -> Tensor:
        """(B, T, D) to (n, D)."""
        return padded.flatten(0, 1).index_select(0, self.places)

    def pad(self, packed: Tensor) -> Tensor:
        """(n, D) to (B, T, D), zero where there is no word."""
        batch, longest = self.shape
        padded = packed.new_zeros(batch * longest, packed.shape[-1])
        return padded.index_copy_(0, self.places, packed).view(batch, longest, -1)
