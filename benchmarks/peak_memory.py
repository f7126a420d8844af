"""Peak memory of a call."""

from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(work: Callable[[], Any], device: str = "cpu") -> int:
    """Return the peak of the bytes that PyTorch allocates during a call.

    Allocations are counted, so the result does not depend on the cache of the allocator.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    # The argument silences a warning of the versions that have it.
    options = {"acc_events": True} if "acc_events" in signature(profile).parameters else {}
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, **options) as run:
        work()
    results = run.profiler.kineto_results if run.profiler else None
    assert results is not None
    held = peak = 0
    for event in sorted(results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak
