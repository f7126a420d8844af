"""Key-value cache of a decoder.

Shapes: B images, W beams per image, L image tokens, P tokens stored per image, H heads, d width of
a head.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.models.layers import additive_mask, use_cpu_kernels

_INITIAL_CAPACITY = 32


@dataclass
class DecoderCache:
    """Keys and values of one decoding run.

    The keys and values of the image tokens are stored once per image, not once per beam. Those of
    the generated tokens stay where they were written, whichever beam they belong to; reordering the
    beams changes only ``ancestry``. On a CPU, keys are stored as (B, H, d, L) and viewed as
    (B, H, L, d): products of few queries read them twice as fast.

    Attributes:
        cross_kv: Keys and values of the image tokens for each layer, (B, H, L, d) each.
        cross_mask: (B, 1, 1, L), the :func:`.additive_mask` of the image tokens.
        steps: Number of tokens per sequence so far.
        ancestry: (B, W, P) bool, True for the stored tokens that each beam continues; None before
            the first step.
        self_kv: Keys and values of the generated tokens for each layer, (B, H, capacity, d) each.
        prepacked: The decoder with weights packed for the number of rows of the second step, or
            None.
    """

    cross_kv: list[tuple[Tensor, Tensor]]
    cross_mask: Tensor
    steps: int = 0
    ancestry: Tensor | None = None
    self_kv: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    prepacked: nn.Module | None = None

    @classmethod
    def from_cross_kv(
        cls, cross_kv: Iterable[tuple[Tensor, Tensor]], mask: Tensor
    ) -> "DecoderCache":
        """Create a cache without generated tokens.

        Args:
            cross_kv: Keys and values of the image tokens for each layer, (B, H, L, d) each.
            mask: (B, L) bool, True for image tokens that may be attended to.
        """
        stored = [_allocate_kv(keys, values, 0) for keys, values in cross_kv]
        return cls(stored, additive_mask(mask)[:, None, None, :])  # mask (B, 1, 1, L)

    def reorder(self, parents: Tensor) -> None:
        """Let each beam continue one of the beams of the previous step.

        Args:
            parents: (B, W) int64, beam indices within each image; W may change.

        Raises:
            UserError: If no step has been made.
        """
        if self.ancestry is None:
            raise UserError("`reorder` must follow a step, got a cache without beams: call `step`")
        index = parents.unsqueeze(-1).expand(-1, -1, self.ancestry.shape[-1])  # (B, W, P)
        self.ancestry = self.ancestry.gather(1, index)  # (B, W, P)

    def begin_step(self, width: int) -> Tensor:
        """Reserve one token per beam.

        Args:
            width: W.

        Returns:
            (B, 1, W, P), the :func:`.additive_mask` of the tokens that each beam may attend to,
            its new one included.
        """
        new = torch.eye(width, dtype=torch.bool, device=self.cross_mask.device)
        new = new.expand(len(self.cross_mask), -1, -1)  # (B, W, W)
        past = [] if self.ancestry is None else [self.ancestry]
        self.ancestry = torch.cat([*past, new], dim=-1)  # (B, W, P + W)
        self.steps += 1
        return additive_mask(self.ancestry).unsqueeze(1)

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store the keys and values of the tokens of a step.

        Args:
            layer: Index of the layer; the layers of a step are called in order.
            keys: (B, H, W, d).
            values: (B, H, W, d).

        Returns:
            Keys and values of all tokens so far, (B, H, P, d) each.
        """
        assert self.ancestry is not None
        end = self.ancestry.shape[-1]  # P
        if layer == len(self.self_kv):
            self.self_kv.append(_allocate_kv(keys, values, _INITIAL_CAPACITY))
        if end > self.self_kv[layer][0].shape[2]:
            self.self_kv[layer] = _allocate_kv(*self.self_kv[layer], 2 * end)
        stored = self.self_kv[layer]
        for buffer, new in zip(stored, (keys, values), strict=True):
            buffer[:, :, end - new.shape[2] : end] = new
        return stored[0][:, :, :end], stored[1][:, :, :end]


def _allocate_kv(keys: Tensor, values: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
    return _allocate(keys, capacity, is_keys=True), _allocate(values, capacity, is_keys=False)


def _allocate(initial: Tensor, capacity: int, is_keys: bool) -> Tensor:
    """Allocate a buffer (B, H, capacity, d) that begins with ``initial`` (B, H, P, d).

    The buffer has room for P tokens if ``capacity`` is smaller.
    """
    batch_size, num_heads, length, head_dims = initial.shape
    capacity = max(capacity, length)
    if is_keys and use_cpu_kernels(initial):
        buffer = initial.new_empty(batch_size, num_heads, head_dims, capacity).transpose(2, 3)
    else:
        buffer = initial.new_empty(batch_size, num_heads, capacity, head_dims)
    buffer[:, :, :length] = initial
    return buffer
