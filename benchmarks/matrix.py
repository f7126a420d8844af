"""The machine's matrix rate, in which figures carry over between machines, and one way to report.

A figure in GEMM-GFLOP is seconds x the rate of a (1600 x 512) x (512 x 2048) product, float32, in
the same process with the same threads.
"""

import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

FLOP = 2 * 1600 * 512 * 2048
PRODUCTS = 5


def seconds_of(work: Callable[[], Any], repeats: int, warm_up: int = 1) -> float:
    """Seconds of one call, the median of some after a few that do not count."""
    taken = [_timed(work) for _ in range(warm_up + repeats)]
    return statistics.median(taken[warm_up:])


def measure(
    work: Callable[[], Any],
    repeats: int,
    settings: dict[str, Any],
    warm_up: int = 1,
    **others: Any,
) -> None:
    """Time a call and print a line to read, and a last line of JSON.

    The product is timed after every call, since the speed of a shared machine changes from second
    to second; seconds and rate are medians, the figure is the median of the calls' own.
    """
    a, b = torch.randn(1600, 512), torch.randn(512, 2048)
    taken, rates = [], []
    for _ in range(warm_up + repeats):
        taken.append(_timed(work))
        rates.append(FLOP / 1e9 / seconds_of(lambda: torch.mm(a, b), PRODUCTS))
    taken, rates = taken[warm_up:], rates[warm_up:]
    figure = statistics.median(s * rate for s, rate in zip(taken, rates, strict=True))
    seconds, rate = statistics.median(taken), statistics.median(rates)
    print(f"{seconds:.4f} s, {figure:.1f} GEMM-GFLOP at {rate:.0f} GFLOP/s")
    result = {"gemm_gflop": figure, "seconds": seconds, "matrix_gflops": rate, **others}
    print_json(result, settings)


def print_json(result: dict[str, Any], settings: dict[str, Any]) -> None:
    """Print figures with their settings and versions as a line of JSON."""
    about = {
        "settings": {**settings, "threads": torch.get_num_threads()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    print(json.dumps({**result, **about}, default=str), flush=True)


def matrix_gflops(repeats: int = 30) -> float:
    """GFLOP/s of the product, the median of some."""
    a, b = torch.randn(1600, 512), torch.randn(512, 2048)
    return FLOP / 1e9 / seconds_of(lambda: torch.mm(a, b), repeats, warm_up=5)


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
