"""Runs that are kept: which training a folder holds, and whose scores.

A folder of a training holds ``run.json`` beside its checkpoints: a name, by settings and data, and,
once the training is finished, the checkpoint that was best on validation. A folder of a test holds
what ``tools/test.py`` writes. So a program of many runs can be stopped and started again, and does
what is missing.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from pcm_plugin.datasets.durable import fingerprint, sha256, write_json
from pcm_plugin.engine.command_line import add_run_arguments, load_config
from pcm_plugin.engine.inputs import TESTED, identify_inputs, name_settings
from pcm_plugin.evaluation import java
from pcm_plugin.evaluation.scoring import NEEDS_JAVA


def read_config(config: Path, options: Sequence[str], loops: Sequence[str]) -> Config:
    """The config that ``tools/train.py`` or ``tools/test.py`` would run with these options.

    Args:
        config: Its file.
        options: As for ``--cfg-options``: ``KEY=VALUE``.
        loops: Which of ``train``, ``val`` and ``test`` would run.

    Raises:
        SystemExit: With a message, if the config or one of its inputs is missing.
    """
    parser = argparse.ArgumentParser()
    add_run_arguments(parser)
    changes = ["--cfg-options", *options] if options else []
    return load_config(parser.parse_args([str(config), *changes]), loops)


def name_run(config: Path, options: Sequence[str]) -> str:
    """A name for a training: another with other settings or data has another.

    Args:
        config: Its config's file.
        options: As for ``--cfg-options``.

    Raises:
        SystemExit: With a message, if something that it reads is missing.
    """
    loops = ("train", "val")
    cfg = read_config(config, options, loops)
    # Tests, logs and what to say where a file is missing change nothing of a run.
    parts = [key for key in cfg if not key.startswith(("_", "test_", "log_"))]
    parts = [key for key in parts if key not in ("prerequisites", "env_cfg")]
    return fingerprint([name_settings(cfg, parts), identify_inputs(cfg, loops)])


def is_trained(work: Path, name: str) -> bool:
    """Whether the run of this name is finished; the folder is its own from now on.

    Args:
        work: The folder of its checkpoints; made if it is not there.
        name: Of :func:`name_run`.

    Raises:
        SystemExit: With a message, if the folder holds another run.
    """
    record = work / "run.json"
    if record.exists():
        found = json.loads(record.read_text())
        if found["run"] != name or not (work / (found["best"] or "")).exists():
            sys.exit(
                f"{work} holds a run with other settings or data: take another folder, or remove it"
            )
        return found["best"] is not None
    if any(work.glob("*.pth")):
        sys.exit(f"{work} holds checkpoints of another run: take another folder, or remove it")
    work.mkdir(parents=True, exist_ok=True)
    write_json(record, {"run": name, "best": None})
    return False


def note_trained(work: Path) -> None:
    """Note that the run of a folder is finished, and its best checkpoint on validation.

    Args:
        work: The folder, as :func:`is_trained` left it.

    Raises:
        FileNotFoundError: If no checkpoint was chosen on validation.
    """
    best = newest_best(work)
    if best is None:
        raise FileNotFoundError(f"{work} holds no best checkpoint: let the config validate")
    record = json.loads((work / "run.json").read_text())
    write_json(work / "run.json", {**record, "best": best.name})


def newest_best(work: Path) -> Path | None:
    """The checkpoint that was last the best on validation; None if there is none.

    Of a folder that was moved while it trained, an older one may be left beside it.

    Args:
        work: The folder of a training's checkpoints.
    """
    return max(work.glob("best_*.pth"), key=lambda path: path.stat().st_mtime, default=None)


def best_of(work: Path) -> str:
    """The checkpoint of a finished run.

    Args:
        work: The folder of its checkpoints.
    """
    return str(work / json.loads((work / "run.json").read_text())["best"])


def is_scored(folder: Path, config: Path, options: Sequence[str], checkpoint: str) -> bool:
    """Whether a folder holds this checkpoint's scores, of these settings and the data there.

    Args:
        folder: The ``--work-dir`` of the test.
        config: The config that is tested.
        options: As for ``--cfg-options``.
        checkpoint: Its file.

    Raises:
        SystemExit: With a message, if something that the test reads is missing.
    """
    if not (folder / "metrics.json").exists():
        return False
    found = json.loads((folder / "metrics.json").read_text())
    cfg = read_config(config, options, ("test",))
    wanted = {
        "settings": name_settings(cfg, TESTED),
        "inputs": identify_inputs(cfg, ("test",)),
        "checkpoint_sha256": sha256(Path(checkpoint)),
    }
    same = all(found.get(key) == value for key, value in wanted.items())
    return same and _is_complete(found["metrics"], cfg.test_evaluator)


def _is_complete(metrics: Mapping[str, float | None], evaluator: Mapping[str, Any]) -> bool:
    """Whether no scorer failed, and none was left out for lack of a Java that is there now."""
    asked = [name for name in NEEDS_JAVA if name in evaluator.get("scorers", ())]
    # JSON has null for NaN.
    finite = {key for key, value in metrics.items() if value is not None and math.isfinite(value)}
    there = {key.rpartition("/")[2] for key in finite}
    whole = len(finite) == len(metrics)
    return whole and all(name in there or java.missing(name) for name in asked)
