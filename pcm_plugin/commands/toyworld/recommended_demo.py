"""The demo of the recommended recipe: the steps of a user who has captions and photos."""

import json
from collections.abc import Sequence
from pathlib import Path

from pcm_plugin.commands.runs import is_trained
from pcm_plugin.commands.toyworld.steps import (
    CAPTIONS,
    DATA,
    QUICK_SIZES,
    SIZES,
    is_newer,
    run,
)
from pcm_plugin.engine.work_folder import require_best_checkpoint
from pcm_plugin.toyworld.world import build_world

RECIPE = "recommended_toy"
FOLDER = DATA / RECIPE
CONFIG = FOLDER / "config.py"
WORK = Path("work_dirs") / RECIPE
RERANK_WEIGHTS = (0, 100, 400, 800)
# The recipe has four images per caption, which take longer than the rest of the demo.
_RECIPE = ("generate.images_per_caption=1",)
# Twenty captions are too few for the default of 5 %.
_QUICK_RECIPE = ("validation.max_share=0.5", "concepts.min_count=1")


def make_data(processes: int, is_quick: bool) -> None:
    """Write the toy domains; generate images of the captions of the town and extract features."""
    for domain, sizes in (QUICK_SIZES if is_quick else SIZES).items():
        build_world(DATA / domain, domain, sizes)
    words = ["make-dataset", CAPTIONS, "--recipe", RECIPE, "--out", FOLDER]
    settings = [*_RECIPE, *(_QUICK_RECIPE if is_quick else ())]
    run([*words, "--set", *settings], processes=processes)


def train(options: Sequence[str]) -> str:
    """Train or resume the training; return the best checkpoint on generated images.

    Args:
        options: Values of ``--cfg-options``.
    """
    if not is_trained(WORK, CONFIG, options):
        changes = ["--cfg-options", *options] if options else []
        run(["train", CONFIG, "--work-dir", WORK, "--resume", *changes])
    return require_best_checkpoint(WORK)


def make_captioner(checkpoint: str) -> Path:
    """Write the captioner file, with the settings of the search that are best on generated images.

    Args:
        checkpoint: The checkpoint.

    Returns:
        The file. It is kept if it is newer than the checkpoint.
    """
    captioner, table = WORK / "captioner.safetensors", WORK / "tuning.csv"
    if not is_newer(table, checkpoint):
        run(["export", CONFIG, checkpoint, "--out", captioner])
        words = ["tune", CONFIG, checkpoint, "--rerank-weights", *RERANK_WEIGHTS]
        run([*words, "--write", captioner, "--out", table])
    return captioner


def evaluate(checkpoint: str) -> list[dict[str, float]]:
    """Caption the real test images of each domain, and return the scores."""
    scores = []
    for domain in SIZES:
        file, captions = WORK / f"{domain}_scores.json", WORK / f"{domain}_captions.json"
        if not is_newer(file, checkpoint):
            captioner = make_captioner(checkpoint)
            photos = DATA / domain / "images" / f"{domain}_test_*.png"
            run(["caption", captioner, photos, "--out", captions], log=WORK / f"{domain}.log")
            run(["score", captions, DATA / domain / "captions_test.json", "--out", file])
        scores.append(json.loads(file.read_text()))
    return scores


def write_report(checkpoint: str) -> Path:
    """Write the report, with the country as photos without captions; keep a newer one.

    Args:
        checkpoint: The checkpoint.
    """
    report = WORK / "report.html"
    if not is_newer(report, checkpoint):
        words = ["report", WORK, "--config", CONFIG, "--checkpoint", checkpoint]
        run([*words, "--photos", DATA / "country" / "images"])
    return report
