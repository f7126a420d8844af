"""Dropout with one random byte per element.

PyTorch draws one random number per element on a CPU, sequentially, which takes a good part of a
training iteration. Here eight elements share the 64 bits of one draw of numpy's SFC64, which is
seeded from PyTorch's generator.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_BYTES_PER_DRAW = 8
_BYTE_VALUES = 256


class DropoutMask(NamedTuple):
    """Dropout mask in compressed form: one byte per element.

    A byte can only resolve probabilities in steps of 1 / 256. The threshold is therefore drawn too,
    between the two multiples next to p, so that an element is dropped with probability exactly p.

    Attributes:
        random_bytes: int8, in the shape of the tensor.
        num_kept_values: Elements are kept whose byte is among this many lowest of the 256 values.
        scale: Factor of the kept elements, ``1 / (1 - p)``.
    """

    random_bytes: Tensor
    num_kept_values: int
    scale: float

    @classmethod
    def sample(cls, like: Tensor, p: float) -> "DropoutMask":
        """Sample a mask.

        Args:
            like: Tensor on the CPU that gives the shape.
            p: Probability of dropping an element; above 0 and below 1.
        """
        seed, fraction = torch.randint(2**62, (2,)).tolist()
        draws = np.random.SFC64(seed).random_raw(-(-like.numel() // _BYTES_PER_DRAW))
        random_bytes = torch.from_numpy(draws.view(np.int8)[: like.numel()]).view(like.shape)
        num_kept_values = int((1 - p) * _BYTE_VALUES + fraction / 2**62)
        return cls(random_bytes, num_kept_values, 1 / (1 - p))

    def as_tensor(self, like: Tensor) -> Tensor:
        """Return the mask with elements 0 or ``scale``, in the shape and dtype of a tensor."""
        if self.num_kept_values == _BYTE_VALUES:
            return torch.full_like(like, self.scale)
        # Compared straight into floating point: a bool mask is slower to make and to multiply by.
        threshold = self.num_kept_values - _BYTE_VALUES // 2
        mask = torch.lt(self.random_bytes, threshold, out=torch.empty_like(like))
        return mask.mul_(self.scale)


def byte_dropout(x: Tensor, p: float) -> Tensor:
    """Apply dropout, and save one byte per element for backward.

    Args:
        x: Any shape and floating-point dtype, on the CPU.
        p: Probability of dropping an element; above 0 and below 1.

    Returns:
        The same shape and dtype.
    """
    return _ByteDropout.apply(x, DropoutMask.sample(x, p))


def relu_byte_dropout(x: Tensor, p: float) -> Tensor:
    """Apply ReLU and dropout, and save only the result for backward.

    Args:
        x: Any shape and floating-point dtype, on the CPU.
        p: Probability of dropping an element; above 0 and below 1.

    Returns:
        The same shape and dtype.
    """
    return _ReLUByteDropout.apply(x, DropoutMask.sample(x, p))


class _ByteDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: DropoutMask) -> Tensor:
        ctx.save_for_backward(mask.random_bytes)
        ctx.mask_settings = mask[1:]
        return mask.as_tensor(x).mul_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        mask = DropoutMask(*ctx.saved_tensors, *ctx.mask_settings)
        return mask.as_tensor(grad).mul_(grad), None


class _ReLUByteDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: DropoutMask) -> Tensor:
        ctx.scale = mask.scale
        y = mask.as_tensor(x).mul_(x).relu_()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        # An element of the result is 0 if it was dropped, and also if the ReLU set it to 0.
        return torch.ops.aten.threshold_backward(grad, y, 0).mul_(ctx.scale), None
