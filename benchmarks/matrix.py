"""The machine's matrix rate, in which figures carry over between machines, and one way to report.

A figure in GEMM-GFLOP is seconds x the rate of a (1600 x 512) x (512 x 2048) product, float32, in
the same process with the same threads.
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
    """Return the seconds of one call: a median, after a few calls that are not counted.

    Args:
        work: What to time.
        repeats: Number of timings.
        warm_up: Timings before these.
        device: Where the work is done; a GPU is waited for before and after each timing.
        calls: Calls in each timing, between which nothing is waited for.
    """
    taken = [_timed(work, device, calls) for _ in range(warm_up + repeats)]
    return statistics.median(taken[warm_up:]) / calls


def synchronize(device: str) -> None:
    """Wait for all work on a GPU; nothing to do on a CPU."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def product_rate(device: str, dtype: torch.dtype, side: int = 8192) -> float:
    """Return the FLOP/s of a square matrix product of random numbers.

    Args:
        device: Where to multiply.
        dtype: Of the matrices. Whether float32 uses TF32 is PyTorch's setting at the time.
        side: Rows and columns. Defaults to 8192, which fills a large GPU.
    """
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * side**3 / seconds_of(lambda: torch.mm(a, b, out=out), 3, 2, device, calls=5)


class Figure(NamedTuple):
    """What a call costs: GEMM-GFLOP, seconds, and the machine's rate meanwhile."""

    gemm_gflop: float
    seconds: float
    matrix_gflops: float


def figure_of(work: Callable[[], Any], repeats: int, warm_up: int = 1) -> Figure:
    """Time a call.

    The product is timed after every call, since the speed of a shared machine changes from second
    to second; seconds and rate are medians, the figure is the median of the calls' own.
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
    """Time a call and print a line to read, and a last line of JSON."""
    figure = figure_of(work, repeats, warm_up)
    print("{1:.4f} s, {0:.1f} GEMM-GFLOP at {2:.0f} GFLOP/s".format(*figure))
    print_json(figure._asdict() | others, settings)


def print_json(result: dict[str, Any], settings: dict[str, Any]) -> None:
    """Print figures with their settings and versions as a line of JSON."""
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
