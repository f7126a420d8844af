"""Keeping float32 where autocast would lose it."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function in float32 whatever autocast says.

    A softmax at temperature 0.01 and a loss over thousands of words need more digits than half
    precision has. Floating-point tensor arguments are cast to float32; the function must have a
    tensor among its positional arguments, whose device says which autocast is switched off.

    Args:
        function: Any function of tensors.

    Returns:
        The same function in float32.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next(arg.device.type for arg in args if isinstance(arg, Tensor))
        with torch.autocast(device, enabled=False):
            return function(*map(_to_float32, args), **kwargs)  # type: ignore[arg-type]

    return wrapped


def _to_float32(value: object) -> object:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.float()
    return value
