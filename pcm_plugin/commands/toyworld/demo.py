"""Run the complete pipeline in the toy world.

    pcm demo        (or: make demo)

Every step is a command that works for your own data too; it is printed before it runs. Steps whose
output exists are skipped.
"""

import argparse
import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from pcm_plugin.commands.argument_types import positive_integer
from pcm_plugin.commands.evaluation_names import folder_name
from pcm_plugin.commands.processes import process_arguments, shell_command
from pcm_plugin.commands.runs import has_scores, is_trained
from pcm_plugin.engine.cfg_options import format_option
from pcm_plugin.engine.config_files import find_config
from pcm_plugin.errors import UserError, plain_errors
from pcm_plugin.packaged_files import packaged_file

DATA = Path("data/toy")
CAPTIONS = DATA / "town" / "captions_train.json"
WORK = Path("work_dirs/pcm_toy")
CLIP = f"local-dir:{packaged_file('toyworld/assets/clip')}"
DIFFUSION = packaged_file("toyworld/assets/diffusion")
SIZES = {
    "town": {"train": 3000, "val": 200, "test": 500},
    "country": {"train": 0, "val": 0, "test": 500},
}
QUICK_SIZES = {
    "town": {"train": 20, "val": 10, "test": 20},
    "country": {"train": 0, "val": 0, "test": 20},
}
QUICK = ("train_cfg.max_epochs=1",)
GUIDANCE = 2.0
"""Guidance scale of the synthetic images, as in ``configs/recipes/toy.py``."""
TARGETS = {"town (in-domain)": None, "country (cross-domain)": "toy_country"}
"""Data sets that the captioner of the town is tested on, as for ``pcm test --eval-on``."""
SCORES = ("BLEU-4", "ROUGE-L", "CIDEr")


# Small tensors are allocated and freed all the time. Without these settings glibc returns their
# memory to the kernel, which has to clear it each time.
KEEP_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TOP_PAD_": "100000000",
}


def run(command: Sequence[object], done: Path | None = None, processes: int = 1) -> None:
    """Print and run a command, unless its output exists.

    Args:
        command: Name of the command and its arguments.
        done: Output of the command. Defaults to None, which always runs it.
        processes: Number of processes that share the work. Defaults to 1.

    Raises:
        UserError: If the command fails.
    """
    if done is not None and done.exists():
        return
    shown = shell_command(command, processes)
    print(f"\n$ {shown}", flush=True)
    # Without this, diffusers warns for each caption that is longer than the 28 tokens of the toy
    # tokenizer.
    quiet = {"DIFFUSERS_VERBOSITY": "error"}
    # Several threads wait for each other thousands of times per iteration of the training. If
    # another process takes a core, they are much slower than one thread.
    one_thread = {"OMP_NUM_THREADS": "1"}
    environment = {**KEEP_MEMORY, **quiet, **one_thread, **os.environ}
    result = subprocess.run(process_arguments(command, processes), env=environment)
    if result.returncode:
        raise UserError(f"this command failed with exit code {result.returncode}:\n  {shown}")


def make_data(processes: int, world: dict[str, dict[str, int]] = SIZES) -> None:
    """Write the toy domains, generate images of their captions, and extract features."""
    from pcm_plugin.toyworld.world import build_world

    for domain, sizes in world.items():
        build_world(DATA / domain, domain, sizes)
    town = DATA / "town"
    vocabulary = town / "vocabulary.txt"
    build = ["build-vocabulary", CAPTIONS, "--min-count", 3, "--out", vocabulary]
    run(build, vocabulary)
    generate(processes, town / "synthetic")
    extract_features(processes)


def generate(
    processes: int, out: Path, guidance: float = GUIDANCE, images_per_caption: int = 1
) -> None:
    """Generate images for each training caption.

    Args:
        processes: Number of processes.
        out: Folder of the image shards.
        guidance: Guidance scale. Defaults to that of the recipe.
        images_per_caption: Images per caption. Defaults to 1.
    """
    words = [CAPTIONS, "--pipeline", DIFFUSION, "--steps", 12, "--guidance", guidance]
    words += ["--format", "png", "--batch-size", 25, "--out", out]
    words += ["--images-per-caption", images_per_caption] if images_per_caption > 1 else []
    run(["generate", *words], processes=processes)


def extract_features(
    processes: int, subfolder: str = "", clip: str = CLIP, options: Sequence[str] = ()
) -> None:
    """Write the concepts and feature stores of both domains.

    Args:
        processes: Number of processes.
        subfolder: Folder in that of each domain. Defaults to ``""``.
        clip: Value of ``--model``. Defaults to the CLIP of the toy world.
        options: Options of ``pcm extract``. Defaults to none.
    """
    town, country = DATA / "town", DATA / "country"
    for root in (town, country):
        concepts = root / subfolder / "concepts.safetensors"
        source = [root / "concepts.txt", "--model", clip, "--out", concepts]
        run(["build-concepts", *source], concepts)
    images: dict[Path, list[object]] = {town / subfolder / "train_store": [town / "synthetic"]}
    for root, split in ((town, "val"), (town, "test"), (country, "test")):
        real: list[object] = [root / "images", "--captions", root / f"captions_{split}.json"]
        images[root / subfolder / f"{split}_store"] = real
    for store, source in images.items():
        run(["extract", *source, "--model", clip, *options, "--out", store], processes=processes)


def train(options: Sequence[str] = ()) -> str:
    """Train or resume the training; return the best checkpoint on the validation split."""
    from pcm_plugin.engine.work_folder import require_best_checkpoint

    config = find_config("pcm_toy")
    if not is_trained(WORK, config, options):
        changes = ["--cfg-options", *options] if options else []
        run(["train", config, "--resume", *changes])
    return require_best_checkpoint(WORK)


def evaluate(checkpoint: str) -> dict[str, dict[str, float]]:
    """Return the scores on the real test images of both domains."""
    table, config = {}, find_config("pcm_toy")
    for name, target in TARGETS.items():
        folder = WORK / "test" / folder_name(target)
        options = [format_option("test_evaluator.outfile", str(folder / "captions.json"))]
        if not has_scores(folder, config, options, checkpoint, target):
            test = ["test", config, checkpoint, "--work-dir", folder]
            test += ["--eval-on", target] if target else []
            run([*test, "--cfg-options", *options])
        table[name] = json.loads((folder / "metrics.json").read_text())["metrics"]
    return table


def show(captioner: Path, sheet: Path) -> None:
    """Caption ten image files; print the captions and write a contact sheet."""
    from pcm_plugin.apis import CaptionInferencer
    from pcm_plugin.formats.coco import read_coco_images
    from pcm_plugin.visualization import contact_sheet, save_sheet

    inferencer = CaptionInferencer(weights=captioner, device="cpu", show_progress=False)
    entries = []
    for domain in SIZES:
        root = DATA / domain
        images = read_coco_images(root / "captions_test.json")[:5]
        results = inferencer.stream([root / "images" / image.file_name for image in images])
        for truth, (image, sample) in zip(images, results, strict=True):
            assert image is not None
            entries.append(inferencer.to_sheet_entry(image, sample, truth.captions))
            print(f"\n{truth.image_id}: {sample.pred_caption}")
            for reference in truth.captions[:3]:
                print(f"    reference: {reference}")
    save_sheet(contact_sheet(entries, inferencer.grid, title="PCM-Net in the toy world"), sheet)


def make_outputs(checkpoint: str) -> tuple[Path, Path]:
    """Write captioner file and report, unless they are newer than the checkpoint; return them."""
    config = find_config("pcm_toy")
    captioner, report = WORK / "captioner.safetensors", WORK / "report.html"
    checkpoint_time = os.path.getmtime(checkpoint)
    clip = ["--cfg-options", format_option("clip.model_name", CLIP)]
    commands: dict[Path, list[object]] = {
        captioner: ["export", config, checkpoint, "--out", captioner, *clip],
        report: ["report", WORK, "--config", config, "--checkpoint", checkpoint],
    }
    for file, command in commands.items():
        if not file.exists() or file.stat().st_mtime < checkpoint_time:
            run(command)
    return captioner, report


@plain_errors()
def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--processes",
        type=positive_integer,
        default=min(2, os.cpu_count() or 1),
        help="number of processes that generate images and extract features (default: %(default)s)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="test the pipeline with 20 captions and one epoch; run it in an empty folder",
    )
    args = parser.parse_args()
    start = time.time()
    make_data(args.processes, QUICK_SIZES if args.quick else SIZES)
    checkpoint = train(QUICK if args.quick else ())
    table = evaluate(checkpoint)
    sheet = WORK / "contact_sheet.png"
    captioner, report = make_outputs(checkpoint)
    show(captioner, sheet)
    print(f"\n{'real test images':24}" + "".join(f"{s:>10}" for s in SCORES))
    for name, metrics in table.items():
        print(f"{name:24}" + "".join(f"{metrics[f'caption/{s}']:10.1f}" for s in SCORES))
    print(f"\ncontact sheet: {sheet}\ncaptions: {WORK}/test/*/captions.json")
    print(f"report: {report}\ncaptioner: {captioner}")
    print(f"  {shell_command(['caption', captioner])} IMAGES")
    print(f"time: {(time.time() - start) / 60:.1f} minutes")
