"""Steps of gpu.py that measure the captioner: training iteration and beam search."""

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import beam_search
import torch
import train_step
from gemm_timing import count_gflop, seconds_of
from gpu_step import Run, default_arguments, matrix_peak
from peak_memory import peak_bytes
from synchronizations import count_kernels, count_synchronizations


def train(
    run: Run, batch: int, amp: bool, compiled: bool = False, deterministic: bool = False
) -> str:
    """Measure a training iteration at full size."""
    size = _training_size(batch, run.is_dry)
    args = default_arguments(train_step, **size, amp=amp, compile=compiled, device=run.device)
    # As in `pcm train` on a GPU.
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    try:
        start = time.perf_counter()
        step = train_step.build_step(args)
        loss = float(step()["loss"])
        run.figures["seconds_to_second_iteration"] = time.perf_counter() - start
        run.figures["loss"] = loss
        if not math.isfinite(loss):
            raise AssertionError(f"the loss is {loss}")
        calls = 1 if run.is_dry else max(3, 640 // batch)
        seconds = seconds_of(step, 1 if run.is_dry else 5, 1, run.device, calls)
        peak = peak_bytes(step, run.device)
    finally:
        torch.use_deterministic_algorithms(False)
        if compiled:
            torch._dynamo.reset()
    lower_bound = iteration_gflop(batch, run.device)
    rate = matrix_peak(run.device, "bfloat16" if amp else "float32")
    share = lower_bound * 1e9 / seconds / rate
    run.figures |= {
        "seconds": seconds,
        "pairs_per_second": size["batch"] / seconds,
        "gflop": lower_bound,
        "share_of_matrix_rate": share,
        "iteration_bytes": peak,
    }
    return (
        f"{1e3 * seconds:.2f} ms, {size['batch'] / seconds:,.0f} pairs/s, "
        f"{100 * share:.1f} % of the matrix rate, {peak / 1e6:,.0f} MB in addition to the model"
    )


def synchronize(run: Run) -> str:
    """Count the host synchronizations and the kernels of an iteration and of a search."""
    size = _training_size(32, run.is_dry) | {"amp": True, "device": run.device}
    works: dict[str, Callable[[], Any]] = {
        "training iteration": train_step.build_step(default_arguments(train_step, **size)),
        "captions of a batch": beam_search.build_captioning(
            default_arguments(beam_search, **size, natural=True)
        ),
    }
    counts: dict[str, int] = {}
    for name, work in works.items():
        places = count_synchronizations(work, run.device)
        counts[name] = sum(places.values())
        run.figures[f"places, {name}"] = dict(places.most_common())
    run.figures["synchronizations"] = counts
    kernels = {name: count_kernels(work, run.device) for name, work in works.items()}
    run.figures["on the GPU"] = kernels
    return "; ".join(
        f"{name}: {counts[name]}"
        + "".join(f", {value:.4g} {what}" for what, value in kernels[name].items())
        for name in works
    )


def caption(run: Run) -> str:
    """Measure beam search with 3 beams for 512 images, in one batch and in batches of 32."""
    images, rows = 2 if run.is_dry else 512, []
    for amp in (False, True):
        for batch in dict.fromkeys((images, min(images, 32))):
            size = _training_size(batch, run.is_dry) | {"batch": batch}
            args = default_arguments(beam_search, **size, amp=amp, natural=True, device=run.device)
            work = beam_search.build_captioning(args)
            calls = images // batch
            seconds = calls * seconds_of(work, 1 if run.is_dry else 3, 1, run.device, calls)
            name = f"{'bfloat16' if amp else 'float32'}, batch {batch}"
            run.figures[name] = {"seconds": seconds, "images_per_second": images / seconds}
            rows.append(f"{name}: {seconds:.3f} s ({images / seconds:,.0f} images/s)")
    return "; ".join(rows)


@functools.cache
def iteration_gflop(batch: int, device: str) -> float:
    """Count the operations of an iteration in matrix products, once, without compiling."""
    size = _training_size(batch, device == "cpu")
    return count_gflop(train_step.build_step(default_arguments(train_step, **size, device=device)))


def _training_size(batch: int, is_dry: bool) -> dict[str, int]:
    return {"batch": 2, "vocabulary": 100} if is_dry else {"batch": batch}
