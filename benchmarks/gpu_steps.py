"""Steps of gpu.py."""

import functools
import importlib.metadata
import os
import platform
import subprocess

import torch
from gemm_timing import product_rate, seconds_of
from gpu_engine_steps import extract_features, generate_images, train_toy_world
from gpu_model_steps import caption, synchronize, train
from gpu_step import ROOT, Run, Step, matrix_peak
from run_all import processor

PACKAGES = (
    *("torch", "torchvision", "triton", "transformers", "diffusers", "accelerate", "numpy"),
    *("mmengine", "mmpretrain", "open_clip_torch", "timm"),
)


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
        "the same, batch 32, bfloat16, deterministic as in `pcm train`",
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
