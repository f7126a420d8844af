"""The demo of the published recipe: PCM-Net on ``configs/pcm_toy.py``."""

import json
from collections.abc import Sequence
from pathlib import Path

from pcm_plugin.commands.evaluation_names import folder_name
from pcm_plugin.commands.runs import has_scores, is_trained
from pcm_plugin.commands.toyworld import steps
from pcm_plugin.commands.toyworld.steps import (
    CLIP,
    QUICK_SIZES,
    SIZES,
    TARGETS,
    is_newer,
    run,
)
from pcm_plugin.engine.cfg_options import format_option
from pcm_plugin.engine.config_files import find_config
from pcm_plugin.engine.work_folder import require_best_checkpoint

WORK = Path("work_dirs/pcm_toy")


def make_data(processes: int, is_quick: bool) -> None:
    """Make the data of ``configs/pcm_toy.py``."""
    steps.make_data(processes, QUICK_SIZES if is_quick else SIZES)


def train(options: Sequence[str]) -> str:
    """Train or resume the training; return the best checkpoint on the validation split.

    Args:
        options: Values of ``--cfg-options``.
    """
    config = find_config("pcm_toy")
    if not is_trained(WORK, config, options):
        changes = ["--cfg-options", *options] if options else []
        run(["train", config, "--resume", *changes])
    return require_best_checkpoint(WORK)


def make_captioner(checkpoint: str) -> Path:
    """Write the captioner file, unless it is newer than the checkpoint; return it."""
    captioner = WORK / "captioner.safetensors"
    if not is_newer(captioner, checkpoint):
        clip = ["--cfg-options", format_option("clip.model_name", CLIP)]
        run(["export", find_config("pcm_toy"), checkpoint, "--out", captioner, *clip])
    return captioner


def evaluate(checkpoint: str) -> list[dict[str, float]]:
    """Return the scores on the real test images of each domain."""
    scores, config = [], find_config("pcm_toy")
    for target in TARGETS.values():
        folder = WORK / "test" / folder_name(target)
        options = [format_option("test_evaluator.outfile", str(folder / "captions.json"))]
        if not has_scores(folder, config, options, checkpoint, target):
            test = ["test", config, checkpoint, "--work-dir", folder]
            test += ["--eval-on", target] if target else []
            run([*test, "--cfg-options", *options])
        metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
        scores.append({name.rpartition("/")[2]: value for name, value in metrics.items()})
    return scores


def write_report(checkpoint: str) -> Path:
    """Write the report of the training, unless it is newer than the checkpoint; return it."""
    report = WORK / "report.html"
    if not is_newer(report, checkpoint):
        run(["report", WORK, "--config", find_config("pcm_toy"), "--checkpoint", checkpoint])
    return report
