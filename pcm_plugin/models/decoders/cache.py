"""What a decoder remembers between the words of a sentence."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.models.layers import additive_mask

_FIRST_ROOM = 32


@dataclass
class DecoderCache:
    """Keys and values of one decoding run.

    Those of the image are kept once an image, not once a beam. Words stay where they were written,
    P of them an image after some steps, whichever beam they belong to; when beams change places,
    only the mask of what each of them continues does. On a CPU keys lie in memory as (B, H, d, L),
    whatever their shape says: a product of few queries reads them twice as fast so.

    Attributes:
        cross: Keys and values of the image tokens, (B, H, L, d) each, a layer an entry.
        mask: (B, 1, 1, L), the :func:`additive_mask` of image tokens that may be attended to.
        steps: Words a sentence so far.
        continued: (B, W, P) bool, the words that each of W beams continues; None before the first.
        words: Keys and values of the words, a layer an entry: room for (B, H, >= P, d) each.
        arranged: The decoder, its weights arranged for as many rows as the second step has.
    """

    cross: list[tuple[Tensor, Tensor]]
    mask: Tensor
    steps: int = 0
    continued: Tensor | None = None
    words: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    arranged: nn.Module | None = None

    @classmethod
    def of(cls, cross: Iterable[tuple[Tensor, Tensor]], mask: Tensor) -> "DecoderCache":
        """Begin.

        Args:
            cross: Keys and values of the image tokens, (B, H, L, d) each, a layer an entry.
            mask: (B, L) bool, True for image tokens that may be attended to.
        """
        arranged = [(_room(keys, 0, True), _room(values, 0, False)) for keys, values in cross]
        return cls(arranged, additive_mask(mask)[:, None, None, :])

    def reorder(self, parents: Tensor) -> None:
        """Continue each beam from one of the beams of the step before.

        Args:
            parents: (B, W) int64, beam indices within each image; W may differ from before.
        """
        if self.continued is None:
            raise UserError("reorder before the first word: there are no beams yet")
        places = self.continued.shape[-1]
        self.continued = self.continued.gather(1, parents.unsqueeze(-1).expand(-1, -1, places))

    def begin_step(self, width: int) -> Tensor:
        """Make place for a word a beam.

        Args:
            width: W, beams an image.

        Returns:
            (B, 1, W, P), the :func:`additive_mask` of the words that each beam may attend to, its new
            one included.
        """
        own = torch.eye(width, dtype=torch.bool, device=self.mask.device)
        own = own.expand(len(self.mask), -1, -1)
        past = [] if self.continued is None else [self.continued]
        self.continued = torch.cat([*past, own], dim=-1)
        self.steps += 1
        return additive_mask(self.continued).unsqueeze(1)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write a step's keys and values of one layer.

        Args:
            layer: Which layer; the layers of a step come in their order.
            keys: (B, H, W, d).
            values: (B, H, W, d).

        Returns:
            Keys and values of all words so far, (B, H, P, d) each.
        """
        assert self.continued is not None
        end = self.continued.shape[-1]
        if layer == len(self.words):
            self.words.append((_room(keys, _FIRST_ROOM, True), _room(values, _FIRST_ROOM, False)))
        if end > self.words[layer][0].shape[2]:
            old = self.words[layer]
            self.words[layer] = (_room(old[0], 2 * end, True), _room(old[1], 2 * end, False))
        both = self.words[layer]
        for room, new in zip(both, (keys, values), strict=True):
            room[:, :, end - new.shape[2] : end] = new
        return both[0][:, :, :end], both[1][:, :, :end]


def _room(first: Tensor, places: int, is_keys: bool) -> Tensor:
    """``first`` (B, H, P, d) at the start of room for so many places, or as many as it needs."""
    batch, heads, filled, width = first.shape
    places = max(places, filled)
    if is_keys and first.device.type == "cpu":
        room = first.new_empty(batch, heads, width, places).transpose(2, 3)
    else:
        room = first.new_empty(batch, heads, places, width)
    room[:, :, :filled] = first
    return room
