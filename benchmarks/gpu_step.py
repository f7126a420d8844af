"""Shared code of the steps of gpu.py."""

import argparse
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from gemm_timing import product_rate

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Run:
    """Input and output of a step.

    Attributes:
        device: Device of the step.
        seconds: Time limit of the step.
        figures: Results, which the step adds as it goes; they are kept if it fails later.
    """

    device: str
    seconds: float
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def is_dry(self) -> bool:
        """Whether to use small sizes, since there is no GPU."""
        return self.device == "cpu"


class Step(NamedTuple):
    """Measurement or check.

    Attributes:
        title: First cell of its row in the table.
        work: Runs the step and returns the second cell.
        needs: Seconds that must be left to start the step on a GPU.
        limit: Seconds after which the step is stopped.
        dry_needs: Like ``needs``, for the dry run; None if the dry run does not include the step.
    """

    title: str
    work: Callable[[Run], str] | None
    needs: float
    limit: float
    dry_needs: float | None = None


@functools.cache
def matrix_peak(device: str, dtype: str) -> float:
    """Return the FLOP/s of a large product; measured once."""
    return product_rate(device, getattr(torch, dtype), 256 if device == "cpu" else 8192)


def default_arguments(module: Any, **settings: Any) -> argparse.Namespace:
    """Return the default arguments of a benchmark with some settings replaced."""
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    args = parser.parse_args([])
    for name, value in settings.items():
        if not hasattr(args, name):
            raise AttributeError(f"{module.__name__} has no argument {name}")
        setattr(args, name, value)
    return args
