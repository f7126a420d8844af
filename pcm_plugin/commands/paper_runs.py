"""How a row of a table of the papers is run: its training, its test, what is there already."""

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pcm_plugin.commands.config_files import TOOLS, find_config
from pcm_plugin.commands.evaluations import folder_name
from pcm_plugin.commands.paper_tables import Row, training_of
from pcm_plugin.commands.runs import has_scores, is_trained, read_config
from pcm_plugin.engine.cfg_options import format_option
from pcm_plugin.engine.work_folder import best_checkpoint, read_record, require_best_checkpoint
from pcm_plugin.errors import UserError


class NotRun(Exception):
    """A row was not run; the message says why, and what would make it run."""


class Failed(NotRun):
    """A command of a row failed."""


@dataclass
class Settings:
    """What the command line says of every run.

    Attributes:
        folder: Where the folders of the trainings are.
        train: Whether to train what is not trained.
        options: Changes of every config, for training and test.
        scorers: Scores of the tests, None for those of the config.
        checkpoints: Weights by name of the training, in place of those in its folder.
    """

    folder: Path
    train: bool = False
    options: list[str] = field(default_factory=list)
    scorers: Sequence[str] | None = None
    checkpoints: dict[str, str] = field(default_factory=dict)


def tool_command(tool: str, config: str, *words: str, options: Sequence[str] = ()) -> list[str]:
    """The words of a command of ours behind ``python``."""
    changes = ["--cfg-options", *options] if options else []
    return [str(TOOLS / tool), str(find_config(config)), *words, *changes]


def shown(command: Sequence[str]) -> str:
    """A command as one would type it."""
    return f"python {shlex.join(command)}"


def run_tool(command: Sequence[str], folder: Path) -> None:
    """Run one of our tools, its output in the log of a folder.

    Raises:
        Failed: If it does.
    """
    print(f"$ {shown(command)}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    with log.open("a") as file:
        code = subprocess.run(
            [sys.executable, *command], stdout=file, stderr=subprocess.STDOUT
        ).returncode
    if code:
        raise Failed(f"failed with exit code {code}, see {log}: {shown(command)}")


def train_command(name: str, settings: Settings) -> list[str]:
    """The training of a row."""
    training, work = training_of(name), settings.folder / name
    options = [*training.options, *settings.options]
    return tool_command(
        "train.py", training.config, "--resume", "--work-dir", str(work), options=options
    )


def weights_of(name: str, settings: Settings) -> str:
    """The checkpoint of a training, trained now if that is wanted.

    Raises:
        NotRun: If there is none.
        UserError: If a training lacks its data, or its folder holds another run.
    """
    work = settings.folder / name
    if name in settings.checkpoints:
        if not Path(settings.checkpoints[name]).is_file():
            raise NotRun(f"checkpoint {settings.checkpoints[name]} does not exist")
        return settings.checkpoints[name]
    record = read_record(work)
    if record is None and (found := best_checkpoint(work)) is not None:
        return str(found)  # brought from elsewhere: the folder's name is all that is known of it
    if not settings.train and not (record and record["finished"]):
        command = shown(train_command(name, settings))
        raise NotRun(f"no weights in {work}: {command}  (or use --train)")
    training = training_of(name)
    config, options = find_config(training.config), [*training.options, *settings.options]
    if settings.train:
        if not is_trained(work, config, options):
            run_tool(train_command(name, settings), work)
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
    """Return the test of a row: its command, its options, the folder of its scores."""
    assert row.training is not None
    training = training_of(row.training)
    folder = settings.folder / row.training / "test" / folder_name(row.eval_on)
    options = [*training.options, *settings.options]
    if settings.scorers is not None:
        options.append(f"test_evaluator.scorers=[{','.join(settings.scorers)}]")
    options.append(format_option("test_evaluator.outfile", f"{folder}/captions.json"))
    words = [checkpoint, *(("--eval-on", row.eval_on) if row.eval_on else ())]
    words += ["--work-dir", str(folder)]
    return tool_command("test.py", training.config, *words, options=options), options, folder


def run_row(row: Row, settings: Settings) -> dict[str, Any]:
    """Score a row, if that is not done yet.

    Returns:
        What ``tools/test.py`` wrote: the metrics and what they are of.

    Raises:
        NotRun: If weights or data are missing, or a command failed.
    """
    if row.training is None:
        raise NotRun("this project has no configuration of it")
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
        run_tool(command, folder)
    return json.loads((folder / "metrics.json").read_text())
