"""Steps of gpu.py."""

import argparse
import dataclasses
import functools
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import beam_search
import extraction
import torch
import train_step
from gemm_timing import count_gflop, product_rate, seconds_of
from peak_memory import peak_bytes
from run_all import processor
from synchronizations import count_kernels, count_synchronizations

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    *("torch", "torchvision", "triton", "transformers", "diffusers", "accelerate", "numpy"),
    *("mmengine", "mmpretrain", "open_clip_torch", "timm"),
)

_FULL_TOY_SECONDS = 400
"""Time limit from which the toy world has the sizes of ``make demo``; below, a sixth of them."""
_TOY_CIDER = 70
"""Minimum CIDEr of a full training; it is 90 in docs/results.md."""


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


def describe_device(run: Run) -> str:
    """Record hardware and versions, and measure the matrix rates for other steps."""
    run.figures["versions"] = {"python": platform.python_version(), **_versions()}
    run.figures["cpu"] = f"{processor()}, {os.cpu_count()} cores"
    if not run.is_dry:
        about = torch.cuda.get_device_properties(run.device)
        run.figures |= {
            "gpu": about.name,
            "gpu_bytes": about.total_memory,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": _driver(),
        }
    rates = {name: matrix_peak(run.device, name) for name in ("float32", "bfloat16", "float16")}
    if not run.is_dry:
        torch.set_float32_matmul_precision("high")
        rates["TF32"] = product_rate(run.device, torch.float32)
        torch.set_float32_matmul_precision("highest")
    size = 1 << (20 if run.is_dry else 30)
    source, target = (torch.ones(size, dtype=torch.uint8, device=run.device) for _ in range(2))
    seconds = seconds_of(lambda: target.copy_(source), 5, 2, run.device)
    run.figures["copy_bytes_per_second"] = 2 * size / seconds
    run.figures["matrix_flops"] = rates
    return ", ".join(f"{name} {rate / 1e12:.3g}" for name, rate in rates.items()) + (
        f" TFLOP/s in matrix products; copies at {2 * size / seconds / 1e12:.2f} TB/s"
    )


def check_parity(run: Run) -> str:
    """Compare with the results of the released code on this device in float32."""
    from tests.parity import Reference

    reference = Reference(ROOT / "tests" / "data" / "parity" / "b32_small", run.device)
    errors, failed = {}, []
    for comparison in reference.comparisons():
        errors[comparison.name] = comparison.error()
        try:
            comparison.check()
        except AssertionError as error:
            failed.append(str(error))
    run.figures["largest_difference"] = errors
    run.figures["failed"] = failed
    if failed:
        raise AssertionError(
            f"{len(failed)} of {len(errors)} comparisons failed: " + " | ".join(failed)
        )
    worst = {name: error for name, error in errors.items() if not name.startswith("gradient of")}
    return f"all {len(errors)} comparisons agree; largest difference {max(worst.values()):.1e}"


def train(
    run: Run, batch: int, amp: bool, compiled: bool = False, deterministic: bool = False
) -> str:
    """Measure a training iteration at full size."""
    size = _training_size(batch, run.is_dry)
    args = _arguments(train_step, **size, amp=amp, compile=compiled, device=run.device)
    # As in tools/train.py on a GPU.
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
        "training iteration": train_step.build_step(_arguments(train_step, **size)),
        "captions of a batch": beam_search.build_captioning(
            _arguments(beam_search, **size, natural=True)
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
    images, rows = 8 if run.is_dry else 512, []
    for amp in (False, True):
        for batch in (images, min(images, 32)):
            size = _training_size(batch, run.is_dry) | {"batch": batch}
            args = _arguments(beam_search, **size, amp=amp, natural=True, device=run.device)
            work = beam_search.build_captioning(args)
            calls = images // batch
            seconds = calls * seconds_of(work, 1 if run.is_dry else 3, 1, run.device, calls)
            name = f"{'bfloat16' if amp else 'float32'}, batch {batch}"
            run.figures[name] = {"seconds": seconds, "images_per_second": images / seconds}
            rows.append(f"{name}: {seconds:.3f} s ({images / seconds:,.0f} images/s)")
    return "; ".join(rows)


def extract_features(run: Run, model: str, pool: int, batch: int) -> str:
    """Measure the extraction of a feature store, relative to CLIP on tensors in memory."""
    size: dict[str, Any] = dict(images=2048, distinct=64, batch=batch, rounds=2)
    if run.is_dry:
        model, size = "ViT-S-32", dict(images=4, distinct=2, side=64, batch=4, rounds=1)
    workers = min(16, os.cpu_count() or 1)
    args = _arguments(
        extraction, model=model, pool=pool, workers=workers, device=run.device, **size
    )
    result = extraction.measure(args)
    run.figures |= result | {"workers": workers, "batch": size["batch"]}
    found, shares = result["images_per_second"], result["share_of_bare"]
    return (
        f"{found['extract']:,.0f} images/s with {workers} reading threads, "
        f"{100 * shares['image tower']:.0f} % of the image tower's {found['image tower']:,.0f}, "
        f"{100 * shares['both towers']:.0f} % of both towers' {found['both towers']:,.0f}"
    )


def generate_images(run: Run, kind: str, recipe: str) -> str:
    """Measure the pipeline of a recipe with random weights, alone and in the whole stage."""
    import diffusers
    from random_pipelines import build_pipeline

    from pcm_plugin.synthesis.generate.generate_images import generate_images
    from pcm_plugin.synthesis.generate.text2image import GenerationRequest, ImageGenerator
    from pcm_plugin.synthesis.pipeline.recipes import load_recipe

    chosen = load_recipe(recipe)
    batch, settings = chosen.generate_batch, dataclasses.replace(chosen.generate, pipeline="random")
    if run.is_dry:
        batch, settings = 2, dataclasses.replace(settings, size=64, steps=1, dtype="float32")
    dtype = getattr(torch, settings.dtype)
    pipeline = build_pipeline(kind, run.device, dtype, small=run.is_dry)
    parameters = sum(
        p.numel()
        for part in pipeline.components.values()
        if isinstance(part, torch.nn.Module)
        for p in part.parameters()
    )
    run.figures |= {"parameters": parameters, "batch": batch, "settings": settings.__dict__}
    captions = [f"a dog number {i} runs over the grass" for i in range(2 * batch)]
    requests = [GenerationRequest(str(i), text) for i, text in enumerate(captions[:batch])]
    if not run.is_dry:
        torch.cuda.reset_peak_memory_stats()
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(diffusers.DiffusionPipeline, "from_pretrained", return_value=pipeline),
    ):
        generator = ImageGenerator(settings, run.device)
        problems = [p for result in generator.generate(requests) for p in result.problems]
        run.figures["problems"] = problems
        if problems:
            raise AssertionError(f"images of a pipeline with random weights: {problems}")
        seconds = seconds_of(lambda: generator.generate(requests), 1, 0, run.device)
        run.figures["images_per_second"] = batch / seconds
        file = Path(folder) / "captions.txt"
        file.write_text("\n".join(captions) + "\n")
        whole = seconds_of(
            lambda: generate_images(file, settings, Path(folder) / "out", batch, run.device),
            1,
            0,
            run.device,
        )
        run.figures["stage_images_per_second"] = len(captions) / whole
    return (
        f"{batch / seconds:.2f} images/s ({settings.size} pixels, {settings.steps} steps, guidance "
        f"{settings.guidance}, batch {batch}, {settings.dtype}, {parameters / 1e9:.2f} B weights); "
        f"{len(captions) / whole:.2f} with JPEG and shards"
    )


def train_toy_world(run: Run) -> str:
    """Run the toy world from captions to test scores: data engine, training, test."""
    is_full = run.seconds >= _FULL_TOY_SECONDS
    options = [] if is_full else ["--captions", "500", "--epochs", "4"]
    run.figures["command"] = " ".join(["python benchmarks/toy_world.py", *options])
    # The working directory changes, and PYTHONPATH may be relative to the current one.
    given = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    paths = os.pathsep.join([str(ROOT), *map(os.path.abspath, given)])
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("w") as file:
            try:
                result = subprocess.run(
                    [sys.executable, str(ROOT / "benchmarks" / "toy_world.py"), *options],
                    cwd=folder,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "PYTHONPATH": paths},
                    timeout=run.seconds - 10,
                )
                code: int | str = result.returncode
            except subprocess.TimeoutExpired:
                code = "none, time limit exceeded"
        lines = log.read_text(errors="replace").splitlines()
    if code != 0:
        run.figures["log"] = lines[-30:]
        raise AssertionError(f"{run.figures['command']}: exit code {code}")
    found = json.loads(lines[-1])
    run.figures |= found
    scores = found["CIDEr"]
    if is_full and scores["town"] < _TOY_CIDER:
        raise AssertionError(
            f"CIDEr of a full training must be at least {_TOY_CIDER}, got {scores}"
        )
    return f"{found['captions']:,} captions: CIDEr " + ", ".join(
        f"{score:.1f} ({name})" for name, score in scores.items()
    )


@functools.cache
def matrix_peak(device: str, dtype: str) -> float:
    """Return the FLOP/s of a large product; measured once."""
    return product_rate(device, getattr(torch, dtype), 256 if device == "cpu" else 8192)


@functools.cache
def iteration_gflop(batch: int, device: str) -> float:
    """Count the operations of an iteration in matrix products, once, without compiling."""
    size = _training_size(batch, device == "cpu")
    return count_gflop(train_step.build_step(_arguments(train_step, **size, device=device)))


def _training_size(batch: int, is_dry: bool) -> dict[str, int]:
    return {"batch": 2, "vocabulary": 100} if is_dry else {"batch": batch}


def _arguments(module: Any, **settings: Any) -> argparse.Namespace:
    """Return the default arguments of a benchmark with some settings replaced."""
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    args = parser.parse_args([])
    for name, value in settings.items():
        if not hasattr(args, name):
            raise AttributeError(f"{module.__name__} has no argument {name}")
        setattr(args, name, value)
    return args


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None


_BF16_32 = dict(batch=32, amp=True)
STEPS: dict[str, Step] = {
    "device": Step("device", describe_device, 10, 60, 2),
    "parity": Step("parity with the released code, float32", check_parity, 5, 60, 2),
    **{
        f"train_{batch}_{name}": Step(
            f"training iteration, batch {batch:,}, {name}",
            functools.partial(train, batch=batch, amp=name == "bfloat16"),
            5,
            60,
            6 if batch == 32 else None,
        )
        for batch in (32, 1024)
        for name in ("float32", "bfloat16")
    },
    "train_deterministic": Step(
        "the same, batch 32, bfloat16, deterministic as in tools/train.py",
        functools.partial(train, **_BF16_32, deterministic=True),
        5,
        60,
        6,
    ),
    "synchronizations": Step("host synchronizations, bfloat16, batch 32", synchronize, 5, 60, 6),
    "beam": Step("beam search with 3 beams, 512 images", caption, 10, 60, 10),
    "extract_b32": Step(
        "extraction, ViT-B/32",
        functools.partial(extract_features, model="ViT-B-32-quickgelu", pool=1, batch=256),
        25,
        90,
        15,
    ),
    "sd15": Step(
        "image generation, Stable Diffusion 1.5",
        functools.partial(generate_images, kind="sd15", recipe="sd15_vitb32"),
        25,
        90,
        15,
    ),
    "extract_l14": Step(
        "extraction, ViT-L/14",
        functools.partial(extract_features, model="ViT-L-14-quickgelu", pool=2, batch=128),
        30,
        90,
    ),
    "sdxl_turbo": Step(
        "image generation, SDXL-Turbo",
        functools.partial(generate_images, kind="sdxl_turbo", recipe="sdxl_turbo_vitl14"),
        25,
        90,
        15,
    ),
    "toy_world": Step("toy world, captions to test scores", train_toy_world, 90, 450),
    "train_32_bfloat16_compiled": Step(
        "training iteration, batch 32, bfloat16, compiled",
        functools.partial(train, **_BF16_32, compiled=True),
        60,
        200,
    ),
    **{
        f"train_{batch}_{name}_compiled": Step(
            f"training iteration, batch {batch:,}, {name}, compiled",
            functools.partial(train, batch=batch, amp=name == "bfloat16", compiled=True),
            60,
            200,
        )
        for batch, name in ((1024, "bfloat16"), (32, "float32"), (1024, "float32"))
    },
}
"""Steps in the order of their importance."""
