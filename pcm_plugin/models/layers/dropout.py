"""Dropout whose random numbers are cheap on a CPU, where PyTorch's are a good part of training."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LANES = 4
_STEPS = 1 << 16


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero elements at random and scale the others so that the mean stays.

    On a CPU PyTorch draws a number an element, one after the other. Here four elements share the 64
    bits of a draw: p is kept to 1 / 65,536, and the scale is that of the p kept.

    Args:
        x: Of any shape and floating type.
        p: Probability of zero, from 0 to 1.
        training: Whether to drop at all.

    Returns:
        The same shape and type.
    """
    if not training or p == 0 or x.device.type != "cpu":
        return F.dropout(x, p, training)
    kept = round((1 - p) * _STEPS)
    if kept in (0, _STEPS):
        return x if kept else torch.zeros_like(x)
    draws = torch.empty(-(-x.numel() // _LANES), dtype=torch.int64).random_(-(2**63), None)
    lanes = draws.view(torch.int16)[: x.numel()].view(x.shape)
    return (x * (lanes < kept - _STEPS // 2)).mul_(_STEPS / kept)


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
