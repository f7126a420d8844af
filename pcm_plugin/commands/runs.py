"""Whether trainings and scores of a config exist already."""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcm_plugin.commands.run_arguments import add_run_arguments
from pcm_plugin.evaluation import java
from pcm_plugin.evaluation.names import JAVA_SCORERS
from pcm_plugin.formats.atomic_io import sha256

if TYPE_CHECKING:
    from mmengine.config import Config


def read_config(
    config: Path, options: Sequence[str], loops: Sequence[str], evaluation: str | None = None
) -> "Config":
    """Return the config that ``pcm train`` or ``pcm test`` would use.

    Args:
        config: File of the config.
        options: Values of ``--cfg-options``, ``KEY=VALUE``.
        loops: Loops that would run: ``train``, ``val`` and ``test``.
        evaluation: Value of ``pcm test --eval-on``. Defaults to None.

    Raises:
        UserError: See :func:`~pcm_plugin.commands.run_arguments.load_config`.
    """
    from pcm_plugin.commands.run_config import load_config

    parser = argparse.ArgumentParser()
    add_run_arguments(parser)
    changes = ["--cfg-options", *options] if options else []
    return load_config(parser.parse_args([str(config), *changes]), loops, evaluation)


def is_trained(folder: Path, config: Path, options: Sequence[str]) -> bool:
    """Return whether a folder contains the finished training of a config.

    Args:
        folder: ``--work-dir`` of the training. It need not exist.
        config: File of the config.
        options: Values of ``--cfg-options``.

    Raises:
        UserError: If an input file of the training is missing, or the folder contains another
            training.
    """
    from pcm_plugin.engine.run_record import record_run
    from pcm_plugin.engine.work_folder import is_finished

    return is_finished(folder, record_run(read_config(config, options, ("train", "val"))))


def has_scores(
    folder: Path,
    config: Path,
    options: Sequence[str],
    checkpoint: str,
    evaluation: str | None = None,
) -> bool:
    """Return whether a folder contains the scores of a checkpoint for these settings and data.

    Args:
        folder: ``--work-dir`` of the test.
        config: File of the config.
        options: Values of ``--cfg-options``.
        checkpoint: File of the checkpoint.
        evaluation: Value of ``pcm test --eval-on``. Defaults to None.

    Raises:
        UserError: If an input file of the test is missing.
    """
    from pcm_plugin.engine.inputs import TEST_KEYS, hash_inputs, hash_settings

    if not (folder / "metrics.json").exists():
        return False
    result = json.loads((folder / "metrics.json").read_text())
    cfg = read_config(config, options, ("test",), evaluation)
    expected = {
        "settings": hash_settings(cfg, TEST_KEYS),
        "inputs": hash_inputs(cfg, ("test",)),
        "checkpoint_sha256": sha256(Path(checkpoint)),
    }
    is_same = all(result.get(key) == value for key, value in expected.items())
    return is_same and _is_complete(result["metrics"], cfg.test_evaluator)


def _is_complete(metrics: Mapping[str, float | None], evaluator: Mapping[str, Any]) -> bool:
    """Return whether all scores that can be computed here are among the metrics."""
    # JSON has null in place of NaN: the score of a scorer that failed.
    if any(value is None or not math.isfinite(value) for value in metrics.values()):
        return False
    names = {key.rpartition("/")[2] for key in metrics}
    requested = [name for name in JAVA_SCORERS if name in evaluator.get("scorers", ())]
    return all(name in names or java.missing_requirement(name) for name in requested)
