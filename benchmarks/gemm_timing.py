"""Timing relative to the matrix rate of the machine, and the report of the results.

A figure in GEMM-GFLOP is the time in seconds multiplied by the rate of a (1600 x 512) x (512 x
2048) product in float32, measured in the same process with the same number of threads. It can be
compared between machines.
"""

import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

FLOP = 2 * 1600 * 512 * 2048
PRODUCTS = 5


def seconds_of(
    work: Callable[[], Any],
    repeats: int,
    warm_up: int = 1,
    device: str = "cpu",
    calls: int = 1,
) -> float:
    """Return the median time of one call in seconds.

    Args:
        work: Function to time.
        repeats: Number of timings.
        warm_up: Number of timings before these that are discarded.
        device: Device of the work; a GPU is synchronized before and after each timing.
        calls: Number of calls per timing, without synchronization in between.
    """
    taken = [_timed(work, device, calls) for _ in range(warm_up + repeats)]
    return statistics.median(taken[warm_up:]) / calls


def synchronize(device: str) -> None:
    """Wait for all work on a GPU; do nothing on a CPU."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def product_rate(device: str, dtype: torch.dtype, side: int = 8192) -> float:
    """Return the FLOP/s of a square matrix product of random numbers.

    Args:
        device: Device of the matrices.
        dtype: Dtype of the matrices. PyTorch's current setting determines whether float32 uses
            TF32.
        side: Number of rows and columns. Defaults to 8192, which saturates a large GPU.
    """
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * side**3 / seconds_of(lambda: torch.mm(a, b, out=out), 3, 2, device, calls=5)


class Figure(NamedTuple):
    """Cost of a call: GEMM-GFLOP, seconds, and the matrix rate at that time."""

    gemm_gflop: float
    seconds: float
    matrix_gflops: float


def figure_of(work: Callable[[], Any], repeats: int, warm_up: int = 1) -> Figure:
    """Time a call.

    The product is timed after each call, since the speed of a shared machine varies within seconds.
    Seconds and rate are medians; the figure is the median of the figures of the calls.
    """
    a, b = torch.randn(1600, 512), torch.randn(512, 2048)
    taken, rates = [], []
    for _ in range(warm_up + repeats):
        taken.append(_timed(work))
        rates.append(FLOP / 1e9 / seconds_of(lambda: torch.mm(a, b), PRODUCTS))
    taken, rates = taken[warm_up:], rates[warm_up:]
    figures = [seconds * rate for seconds, rate in zip(taken, rates, strict=True)]
    return Figure(*map(statistics.median, (figures, taken, rates)))


def measure(
    work: Callable[[], Any],
    repeats: int,
    settings: dict[str, Any],
    warm_up: int = 1,
    **others: Any,
) -> None:
    """Time a call, and print a summary and a line of JSON."""
    figure = figure_of(work, repeats, warm_up)
    print("{1:.4f} s, {0:.1f} GEMM-GFLOP at {2:.0f} GFLOP/s".format(*figure))
    print_json(figure._asdict() | others, settings)


def print_json(result: dict[str, Any], settings: dict[str, Any]) -> None:
    """Print figures, settings and versions as a line of JSON."""
    about = {
        "settings": {"threads": torch.get_num_threads(), **settings},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    print(json.dumps({**result, **about}, default=str), flush=True)


def count_gflop(work: Callable[[], Any]) -> float:
    """Floating-point operations of a call's matrix products, in billions."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


def matrix_gflops(repeats: int = 30) -> float:
    """GFLOP/s of the product, the median of some."""
    a, b = torch.randn(1600, 512), torch.randn(512, 2048)
    return FLOP / 1e9 / seconds_of(lambda: torch.mm(a, b), repeats, warm_up=5)


def _timed(work: Callable[[], Any], device: str = "cpu", calls: int = 1) -> float:
    synchronize(device)
    start = time.perf_counter()
    for _ in range(calls):
        work()
    synchronize(device)
    return time.perf_counter() - start
