"""Kept results: the config of a command, and whether its scores are there already."""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from pcm_plugin.commands.run_arguments import add_run_arguments, load_config
from pcm_plugin.engine.inputs import TEST_KEYS, hash_inputs, hash_settings
from pcm_plugin.engine.run_record import record_run
from pcm_plugin.engine.work_folder import is_finished
from pcm_plugin.evaluation import java
from pcm_plugin.evaluation.scoring import JAVA_SCORERS
from pcm_plugin.formats.atomic_io import sha256


def read_config(
    config: Path, options: Sequence[str], loops: Sequence[str], evaluation: str | None = None
) -> Config:
    """The config that ``tools/train.py`` or ``tools/test.py`` would run with these options.

    Args:
        config: Its file.
        options: As for ``--cfg-options``: ``KEY=VALUE``.
        loops: Which of ``train``, ``val`` and ``test`` would run.
        evaluation: As for ``tools/test.py --eval-on``.

    Raises:
        UserError: See :func:`~pcm_plugin.commands.run_arguments.load_config`.
    """
    parser = argparse.ArgumentParser()
    add_run_arguments(parser)
    changes = ["--cfg-options", *options] if options else []
    return load_config(parser.parse_args([str(config), *changes]), loops, evaluation)


def is_trained(folder: Path, config: Path, options: Sequence[str]) -> bool:
    """Return whether a folder holds the finished training of a config.

    Args:
        folder: The ``--work-dir`` of the training; need not exist.
        config: Its config's file.
        options: As for ``--cfg-options``.

    Raises:
        UserError: If something that the training reads is missing, or if the folder holds another
            training.
    """
    return is_finished(folder, record_run(read_config(config, options, ("train", "val"))))


def has_scores(
    folder: Path,
    config: Path,
    options: Sequence[str],
    checkpoint: str,
    evaluation: str | None = None,
) -> bool:
    """Whether a folder holds this checkpoint's scores, of these settings and the data there.

    Args:
        folder: The ``--work-dir`` of the test.
        config: The config that is tested.
        options: As for ``--cfg-options``.
        checkpoint: Its file.
        evaluation: As for ``tools/test.py --eval-on``.

    Raises:
        UserError: If something that the test reads is missing.
    """
    if not (folder / "metrics.json").exists():
        return False
    found = json.loads((folder / "metrics.json").read_text())
    cfg = read_config(config, options, ("test",), evaluation)
    wanted = {
        "settings": hash_settings(cfg, TEST_KEYS),
        "inputs": hash_inputs(cfg, ("test",)),
        "checkpoint_sha256": sha256(Path(checkpoint)),
    }
    same = all(found.get(key) == value for key, value in wanted.items())
    return same and _is_complete(found["metrics"], cfg.test_evaluator)


def _is_complete(metrics: Mapping[str, float | None], evaluator: Mapping[str, Any]) -> bool:
    """Whether no scorer failed, and none was left out for lack of a Java that is there now."""
    asked = [name for name in JAVA_SCORERS if name in evaluator.get("scorers", ())]
    # JSON has null for NaN.
    finite = {key for key, value in metrics.items() if value is not None and math.isfinite(value)}
    there = {key.rpartition("/")[2] for key in finite}
    whole = len(finite) == len(metrics)
    return whole and all(name in there or java.missing_requirement(name) for name in asked)
