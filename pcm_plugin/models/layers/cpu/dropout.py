"""Dropout whose random numbers are cheap on a CPU, where PyTorch's are a good part of training."""

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pcm_plugin.errors import UserError

# torch 2.0 does not tell.
_is_compiling = getattr(getattr(torch, "compiler", None), "is_compiling", lambda: False)
_LANES = 8
_STEPS = 1 << 8


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero elements at random and scale the others so that the mean stays.

    On a CPU PyTorch draws a number an element, one after the other. Here eight elements share the
    64 bits of a draw of numpy's SFC64, whose seed comes from PyTorch's generator. A byte tells
    apart multiples of 1 / 256, so that the threshold is itself drawn, between the two neighbours of
    p, and an element is zero with probability p exactly. For the gradient a byte an element is
    kept.

    Args:
        x: Of any shape and floating type.
        p: Probability of zero, from 0 to 1.
        training: Whether to drop at all.

    Returns:
        The same shape and type.
    """
    if not training or p in (0, 1) or use_native_kernel(x):
        return F.dropout(x, p, training)
    return _Dropout.apply(x, Draw.of(x, p))


def relu_dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout of what a ReLU lets through; for the gradient nothing but the result is kept.

    Args:
        x: Of any shape and floating type.
        p: Probability of zero, from 0 to 1.
        training: Whether to drop at all.

    Returns:
        The same shape and type.
    """
    if not training or p in (0, 1) or use_native_kernel(x):
        return F.dropout(F.relu(x), p, training)
    return _ReLUDropout.apply(x, Draw.of(x, p))


class Dropout(nn.Module):
    """Module form of :func:`dropout`.

    Args:
        p: Probability of zero.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise UserError(f"dropout p={p}: give a probability")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"p={self.p}"


def use_native_kernel(x: Tensor) -> bool:
    """Whether PyTorch's own dropout is the better one: on a GPU, and where it is compiled."""
    return x.device.type != "cpu" or _is_compiling()


class Draw(NamedTuple):
    """Which elements of a tensor are kept.

    Attributes:
        bytes: int8, of the tensor's shape.
        kept: An element is kept whose byte is among the lowest so many of 256.
        scale: What is kept is multiplied by.
    """

    bytes: Tensor
    kept: int
    scale: float

    @classmethod
    def of(cls, like: Tensor, p: float) -> "Draw":
        """Draw for a tensor on the CPU; p is above 0 and below 1."""
        seed, place = torch.randint(2**62, (2,)).tolist()
        words = np.random.SFC64(seed).random_raw(-(-like.numel() // _LANES))
        lanes = torch.from_numpy(words.view(np.int8)[: like.numel()]).view(like.shape)
        return cls(lanes, int((1 - p) * _STEPS + place / 2**62), 1 / (1 - p))

    def mask(self, like: Tensor) -> Tensor:
        """0 or the scale, of the shape and type of a tensor."""
        if self.kept == _STEPS:
            return torch.full_like(like, self.scale)
        # Straight into floating point: a mask of bools is slower to make and to multiply with.
        mask = torch.lt(self.bytes, self.kept - _STEPS // 2, out=torch.empty_like(like))
        return mask.mul_(self.scale)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, draw: Draw) -> Tensor:
        ctx.save_for_backward(draw.bytes)
        ctx.rest = draw[1:]
        return draw.mask(x).mul_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return Draw(*ctx.saved_tensors, *ctx.rest).mask(grad).mul_(grad), None


class _ReLUDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, draw: Draw) -> Tensor:
        ctx.scale = draw.scale
        y = draw.mask(x).mul_(x).relu_()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        # What was dropped is zero, as is what the ReLU stopped.
        return torch.ops.aten.threshold_backward(grad, y, 0).mul_(ctx.scale), None
