"""Dropout, with a faster kernel on a CPU."""

import torch.nn.functional as F
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.models.layers.cpu.byte_dropout import byte_dropout, relu_byte_dropout
from pcm_plugin.models.layers.cpu.switch import use_cpu_kernels


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Set elements to zero at random and scale the others by ``1 / (1 - p)``.

    Args:
        x: Any shape and floating-point dtype.
        p: Probability of dropping an element, from 0 to 1.
        training: Whether to apply dropout; otherwise ``x`` is returned.

    Returns:
        The same shape and dtype.
    """
    if training and 0 < p < 1 and use_cpu_kernels(x):
        return byte_dropout(x, p)
    return F.dropout(x, p, training)


def relu_dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Apply ReLU, then :func:`dropout`.

    Args:
        x: Any shape and floating-point dtype.
        p: Probability of dropping an element, from 0 to 1.
        training: Whether to apply dropout.

    Returns:
        The same shape and dtype.
    """
    if training and 0 < p < 1 and use_cpu_kernels(x):
        return relu_byte_dropout(x, p)
    return F.dropout(F.relu(x), p, training)


class Dropout(nn.Module):
    """Module form of :func:`dropout`.

    Args:
        p: Probability of dropping an element.

    Raises:
        UserError: If ``p`` is not a probability.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise UserError(f"dropout `p` must be from 0 to 1, got `{p}`: pass a probability")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Apply dropout in training mode; any shape."""
        return dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        """Return the text that ``print`` shows in the parentheses."""
        return f"p={self.p}"
