"""Host synchronizations and kernel launches of a call."""

import os
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

_OURS = ("pcm_plugin", "mmengine", "benchmarks")
_MESSAGE = "called a synchronizing CUDA operation"


def count_synchronizations(work: Callable[[], Any], device: str) -> Counter[str]:
    """Count the operations of a call for which PyTorch waits for the GPU.

    Args:
        work: Function to call; must have been called before.
        device: Its device; nothing is counted on a CPU.

    Returns:
        Number by location: the innermost line of this package or of MMEngine.
    """
    places: Counter[str] = Counter()

    def count(message: Any, *_: Any, **__: Any) -> None:
        if _MESSAGE in str(message):
            places[_location()] += 1

    is_gpu = torch.device(device).type == "cuda"
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        if is_gpu:
            torch.cuda.set_sync_debug_mode("warn")
        warnings.showwarning = count
        try:
            work()
        finally:
            if is_gpu:
                torch.cuda.set_sync_debug_mode("default")
    return places


def _location() -> str:
    frames = traceback.extract_stack()[:-2]
    for frame in reversed(frames):
        parts = frame.filename.split(os.sep)
        for name in _OURS:
            if name in parts[:-1]:
                start = len(parts) - 1 - parts[::-1].index(name)
                return f"{'/'.join(parts[start:])}:{frame.lineno} {frame.line}"
    return f"{frames[-1].filename}:{frames[-1].lineno}"


def count_kernels(work: Callable[[], Any], device: str) -> dict[str, float]:
    """Count the kernels that a call runs on the GPU.

    Returns:
        ``kernels``, their number including copies and fills, and ``ms of kernels``, the sum of
        their times; empty on a CPU.
    """
    if torch.device(device).type != "cuda":
        return {}
    work()
    torch.cuda.synchronize(device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as run:
        work()
        torch.cuda.synchronize(device)
    events = [event for event in run.events() if event.device_type == DeviceType.CUDA]
    return {
        "kernels": len(events),
        "ms of kernels": sum(event.device_time for event in events) / 1e3,
    }
