"""Dropout whose random numbers are cheap on a CPU, where PyTorch's are a good part of training."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LANES = 8
_STEPS = 1 << 8


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero elements at random and scale the others so that the mean stays.

    On a CPU PyTorch draws a number an element, one after the other. Here eight elements share the
    64 bits of a draw of numpy's SFC64, whose seed comes from PyTorch's generator. A lane tells
    apart multiples of 1 / 256, so that the threshold is itself drawn, between the two neighbours of
    p, and an element is zero with probability p exactly.

    Args:
        x: Of any shape and floating type.
        p: Probability of zero, from 0 to 1.
        training: Whether to drop at all.

    Returns:
        The same shape and type.
    """
    if not training or p == 0 or p == 1 or x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, p, training)
    seed, place = torch.randint(2**62, (2,)).tolist()
    kept = int((1 - p) * _STEPS + place / 2**62)
    if kept == _STEPS:
        return x / (1 - p)
    words = np.random.SFC64(seed).random_raw(-(-x.numel() // _LANES))
    lanes = torch.from_numpy(words.view(np.int8)[: x.numel()]).view(x.shape)
    # Straight into floating point: a mask of bools is slower to make, and slower to multiply with.
    mask = torch.lt(lanes, kept - _STEPS // 2, out=torch.empty_like(x, requires_grad=False))
    return x * mask.mul_(1 / (1 - p))


class Dropout(nn.Module):
    """Module form of :func:`dropout`.

    Args:
        p: Probability of zero.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"dropout p={p}: give a probability")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"p={self.p}"
