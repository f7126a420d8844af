"""Full precision under autocast."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function to run in float32, even under autocast.

    Half precision is not sufficient for a softmax at temperature 0.01 or a loss over thousands of
    words. Positional floating-point tensor arguments are cast to float32, and autocast is disabled
    for the device of the first positional tensor argument.

    Args:
        function: A function with at least one positional tensor argument.

    Returns:
        The function in float32.
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
