"""Train and test the rows of the papers' tables."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pcm_plugin.commands.evaluation_names import folder_name
from pcm_plugin.commands.paper_tables import Row
from pcm_plugin.commands.paper_trainings import training_of
from pcm_plugin.commands.processes import process_arguments, shell_command
from pcm_plugin.commands.runs import has_scores, is_trained, read_config
from pcm_plugin.engine.cfg_options import format_option
from pcm_plugin.engine.config_files import find_config
from pcm_plugin.errors import UserError


class NotRun(Exception):
    """A row was not run. The message gives the reason and the command that helps."""


class Failed(NotRun):
    """A command of a row failed."""


@dataclass
class Settings:
    """Settings of all runs.

    Attributes:
        folder: Parent of the work folders of the trainings.
        train: Whether to train rows that have no weights.
        options: Changes of every config in training and test, as for ``--cfg-options``.
        scorers: Scores of the tests; None for those of the config.
        checkpoints: Weights by name of the training, which replace those in its folder.
    """

    folder: Path
    train: bool = False
    options: list[str] = field(default_factory=list)
    scorers: Sequence[str] | None = None
    checkpoints: dict[str, str] = field(default_factory=dict)


def config_command(name: str, config: str, *words: str, options: Sequence[str] = ()) -> list[str]:
    """Return the command ``name`` with its arguments: a config, other words and settings."""
    changes = ["--cfg-options", *options] if options else []
    return [name, str(find_config(config)), *words, *changes]


def run_command(command: Sequence[str], folder: Path) -> None:
    """Run a command and append its output to ``log.txt`` in a folder.

    Raises:
        Failed: If it fails.
    """
    print(f"$ {shell_command(command)}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    with log.open("a") as file:
        code = subprocess.run(
            process_arguments(command), stdout=file, stderr=subprocess.STDOUT
        ).returncode
    if code:
        raise Failed(f"failed with exit code {code}, see {log}: {shell_command(command)}")


def train_command(name: str, settings: Settings) -> list[str]:
    """Return the command of a training."""
    training, work = training_of(name), settings.folder / name
    options = [*training.options, *settings.options]
    return config_command(
        "train", training.config, "--resume", "--work-dir", str(work), options=options
    )


def weights_of(name: str, settings: Settings) -> str:
    """Return the checkpoint of a training; with ``settings.train``, train it if it is missing.

    Raises:
        NotRun: If there is no checkpoint.
        UserError: If a training lacks its data, or its folder holds another run.
    """
    work = settings.folder / name
    if name in settings.checkpoints:
        if not Path(settings.checkpoints[name]).is_file():
            raise NotRun(f"checkpoint {settings.checkpoints[name]} does not exist")
        return settings.checkpoints[name]
    from pcm_plugin.engine.work_folder import (
        best_checkpoint,
        read_record,
        require_best_checkpoint,
    )

    record = read_record(work)
    if record is None and (found := best_checkpoint(work)) is not None:
        return str(found)  # a copy from elsewhere, without record
    if not settings.train and not (record and record["finished"]):
        command = shell_command(train_command(name, settings))
        raise NotRun(f"no weights in {work}: {command}  (or use --train)")
    training = training_of(name)
    config, options = find_config(training.config), [*training.options, *settings.options]
    if settings.train:
        if not is_trained(work, config, options):
            run_command(train_command(name, settings), work)
    else:
        _check_same(work, config, options)
    try:
        return require_best_checkpoint(work)
    except FileNotFoundError as error:
        raise NotRun(str(error)) from None


def _check_same(work: Path, config: Path, options: Sequence[str]) -> None:
    try:
        read_config(config, options, ("train", "val"))
    except UserError:
        return  # Without the training's data there is nothing to compare.
    is_trained(work, config, options)


def test_command(
    row: Row, settings: Settings, checkpoint: str
) -> tuple[list[str], list[str], Path]:
    """Return the command of a row's test, its options, and the folder of its scores."""
    training = training_of(row.training)
    folder = settings.folder / row.training / "test" / folder_name(row.eval_on)
    options = [*training.options, *settings.options]
    if settings.scorers is not None:
        options.append(f"test_evaluator.scorers=[{','.join(settings.scorers)}]")
    options.append(format_option("test_evaluator.outfile", f"{folder}/captions.json"))
    words = [checkpoint, *(("--eval-on", row.eval_on) if row.eval_on else ())]
    words += ["--work-dir", str(folder)]
    return config_command("test", training.config, *words, options=options), options, folder


def run_row(row: Row, settings: Settings) -> dict[str, Any]:
    """Test a row, unless its scores exist.

    Returns:
        The content of ``metrics.json`` of ``pcm test``.

    Raises:
        NotRun: If weights or data are missing, or a command failed.
    """
    if not row.has_config:
        raise NotRun("this project has no config of this system")
    reasons: list[str] = []
    checkpoint = ""
    try:
        checkpoint = weights_of(row.training, settings)
    except Failed:
        raise
    except (NotRun, UserError) as error:
        reasons.append(str(error))
    command, options, folder = test_command(row, settings, checkpoint)
    config = find_config(training_of(row.training).config)
    try:
        read_config(config, options, ("test",), row.eval_on)
    except UserError as error:  # a file that it needs is missing
        reasons.append(str(error))
    if reasons:
        raise NotRun("\n".join(reasons))
    if not has_scores(folder, config, options, checkpoint, row.eval_on):
        run_command(command, folder)
    return json.loads((folder / "metrics.json").read_text())
