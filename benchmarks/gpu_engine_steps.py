"""Steps of gpu.py that measure the data engine and the toy world."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import extraction
import torch
from gemm_timing import seconds_of
from gpu_step import ROOT, Run, default_arguments

_FULL_TOY_SECONDS = 400
"""Time limit from which the toy world has the sizes of ``make demo``; below, a sixth of them."""


_TOY_CIDER = 70
"""Minimum CIDEr of a full training; it is 90 in docs/results.md."""


def extract_features(run: Run, model: str, pool: int, batch: int) -> str:
    """Measure the extraction of a feature store, relative to CLIP on tensors in memory."""
    size: dict[str, Any] = dict(images=2048, distinct=64, batch=batch, rounds=2)
    if run.is_dry:
        model, size = "ViT-S-32", dict(images=4, distinct=2, side=64, batch=4, rounds=1)
    workers = min(16, os.cpu_count() or 1)
    args = default_arguments(
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
