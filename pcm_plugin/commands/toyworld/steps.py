"""Steps that ``pcm demo`` and ``pcm results`` share: the data of the toy world.

Every step is a command that works for other data too; it is printed before it runs. Steps whose
output exists are skipped.
"""

import os
import subprocess
from collections.abc import Sequence
from contextlib import nullcontext
from glob import glob
from pathlib import Path

from pcm_plugin.commands.processes import process_arguments, shell_command
from pcm_plugin.errors import UserError
from pcm_plugin.packaged_files import packaged_file

DATA = Path("data/toy")
CAPTIONS = DATA / "town" / "captions_train.json"
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


# Small tensors are allocated and freed all the time. Without these settings glibc returns their
# memory to the kernel, which has to clear it each time.
KEEP_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TOP_PAD_": "100000000",
}


def run(
    command: Sequence[object],
    done: Path | None = None,
    processes: int = 1,
    log: Path | None = None,
) -> None:
    """Print and run a command, unless its output exists.

    Args:
        command: Name of the command and its arguments. Patterns of file names are expanded.
        done: Output of the command. Defaults to None, which always runs it.
        processes: Number of processes that share the work. Defaults to 1.
        log: File to write what the command prints to. Defaults to None, the terminal.

    Raises:
        UserError: If the command fails.
    """
    if done is not None and done.exists():
        return
    arguments: list[object] = []
    shown = shell_command(command, processes)
    for word in map(str, command):
        arguments += sorted(glob(word)) if "*" in word else [word]
        shown = shown.replace(f"'{word}'", word) if "*" in word else shown
    shown += f" > {log}" if log else ""
    print(f"\n$ {shown}", flush=True)
    # Without this, diffusers warns for each caption that is longer than the 28 tokens of the toy
    # tokenizer.
    quiet = {"DIFFUSERS_VERBOSITY": "error"}
    # Several threads wait for each other thousands of times per iteration of the training. If
    # another process takes a core, they are much slower than one thread.
    one_thread = {"OMP_NUM_THREADS": "1"}
    environment = {**KEEP_MEMORY, **quiet, **one_thread, **os.environ}
    with log.open("w") if log else nullcontext() as output:
        result = subprocess.run(
            process_arguments(arguments, processes), env=environment, stdout=output
        )
    if result.returncode:
        raise UserError(f"this command failed with exit code {result.returncode}:\n  {shown}")


def is_newer(file: Path, checkpoint: str) -> bool:
    """Return whether a file exists and is newer than a checkpoint."""
    return file.exists() and file.stat().st_mtime > os.path.getmtime(checkpoint)


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
