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


def matrix_gflops(repeats: int = 30) -> float:
    """GFLOP/s of the product, the median of some."""
    a, b = torch.randn(1600, 512), torch.randn(512, 2048)
    flop = 2 * 1600 * 512 * 2048
    return flop / 1e9 / seconds_of(lambda: a @ b, repeats, warm_up=5)


def seconds_of(work: Callable[[], Any], repeats: int, warm_up: int = 1) -> float:
    """Seconds of one call, the median of some after a few that do not count."""
    taken = []
    for _ in range(warm_up + repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[warm_up:])


def report(seconds: float, rate: float, settings: dict[str, Any], **others: Any) -> None:
    """Print a line to read, and a last line of JSON."""
    result = {
        "gemm_gflop": seconds * rate,
        "seconds": seconds,
        "matrix_gflops": rate,
        **others,
        "settings": {**settings, "threads": torch.get_num_threads()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    print(f"{seconds:.4f} s, {seconds * rate:.1f} GEMM-GFLOP at {rate:.0f} GFLOP/s")
    print(json.dumps(result))
