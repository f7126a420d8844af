"""How much memory a call takes at its peak."""

from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile


def peak_bytes(work: Callable[[], Any]) -> int:
    """Bytes that PyTorch holds on the CPU at most during a call, above what it held before it.

    Counted from its allocations, so that it does not depend on what the allocator keeps.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as run:
        work()
    results = run.profiler.kineto_results if run.profiler else None
    assert results is not None
    held = peak = 0
    for event in sorted(results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak
