"""Work folder of a training: lock, record of the run and checkpoints.

The folder contains ``run.json`` next to the checkpoints, with the record of the run (see
:mod:`pcm_plugin.engine.run_record`), whether it is finished, and the name of the checkpoint with
the best validation.
"""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process

from pcm_plugin.engine.run_record import Record, find_changes, find_changes_for_resume
from pcm_plugin.errors import LockedError, MissingFileError, UserError
from pcm_plugin.formats.atomic_io import write_json
from pcm_plugin.formats.locks import file_lock

RUN_FILE = "run.json"
_LOCK_FILE = ".lock"
_CHECKPOINTS = ("epoch_*.pth", "iter_*.pth", "best_*.pth")


class OtherRunError(UserError):
    """A folder that contains another training than the requested one."""


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock a folder against other trainings until the block or the process ends.

    The main process holds the lock, and the others learn from it that the folder is taken. The
    system releases the lock when the process dies, even if its workers outlive it.

    Args:
        folder: The folder; made if it is not there, and removed again if nothing is in it after
            the block.

    Raises:
        LockedError: If another training holds it.
        UserError: If the file system has no locks.
    """
    with contextlib.ExitStack() as stack:
        error: list[Any] = [None]
        if is_main_process():
            try:
                stack.enter_context(_lock(folder))
            except (OSError, UserError) as problem:
                error = [problem]
        broadcast_object_list(error, src=0)
        if error[0] is not None:
            raise error[0]
        yield


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _LOCK_FILE
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(file_lock(path, blocking=False))
        except LockedError:
            holder = ""
            with contextlib.suppress(PermissionError):  # Windows does not read a locked file
                holder = path.read_text().strip()
            raise LockedError(
                f"another training writes to {folder}{f' ({holder})' if holder else ''}: wait for "
                "it to end, or choose another --work-dir"
            ) from None
        with contextlib.suppress(PermissionError):
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        try:
            yield
        finally:
            if is_new and os.listdir(folder) == [_LOCK_FILE]:
                with contextlib.suppress(PermissionError):  # Windows does not delete open files
                    path.unlink()
                    folder.rmdir()


def claim_run(folder: Path, run: Record, resumed: Path | None) -> None:
    """Record in a folder which training it belongs to.

    Args:
        folder: Folder that is locked by this process.
        run: Record of the training.
        resumed: Checkpoint from which the training is resumed, None for a new training.

    Raises:
        OtherRunError: If the training would replace checkpoints in the folder from which it is not
            resumed. The message lists the differences.
    """
    checkpoints = find_checkpoints(folder)
    if checkpoints and (resumed is None or resumed.resolve().parent != folder.resolve()):
        raise OtherRunError(_describe_conflict(folder, run, checkpoints, resumed))
    if is_main_process():
        write_json(folder / RUN_FILE, {**run, "best": None, "finished": False})


def mark_finished(folder: Path) -> None:
    """Record that the training in a folder is finished, and its best checkpoint."""
    best = best_checkpoint(folder)
    record = json.loads((folder / RUN_FILE).read_text())
    record |= {"best": best.name if best else None, "finished": True}
    write_json(folder / RUN_FILE, record)


def is_finished(folder: Path, run: Record) -> bool:
    """Return whether a folder contains a training and it is finished.

    Args:
        folder: Folder of the checkpoints. It need not exist.
        run: Record of the training.

    Raises:
        OtherRunError: If the folder contains another training. The message lists the differences.
    """
    checkpoints = find_checkpoints(folder)
    record = read_record(folder)
    if record is None:
        if checkpoints:
            raise OtherRunError(
                f"{folder} contains checkpoints ({checkpoints[0].name}) of a training without "
                f"{RUN_FILE}: choose another folder, or remove it"
            )
        return False
    if changes := find_changes(record, run):
        if not checkpoints:  # interrupted before the first checkpoint
            return False
        raise OtherRunError(
            "\n".join(
                [
                    f"{folder} contains a training with other settings or data:",
                    *changes,
                    "Choose another folder, or remove it.",
                ]
            )
        )
    return record["finished"] and (record["best"] is None or (folder / record["best"]).exists())


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the content of ``run.json`` in a folder, None if it does not exist."""
    path = folder / RUN_FILE
    return json.loads(path.read_text()) if path.is_file() else None


def find_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, newest first."""
    paths = [path for pattern in _CHECKPOINTS for path in folder.glob(pattern)]
    return sorted(paths, key=lambda path: (-path.stat().st_mtime, path.name))


def best_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint with the best validation; None if there is none.

    Args:
        folder: Folder of the checkpoints.
    """
    return next((p for p in find_checkpoints(folder) if p.name.startswith("best_")), None)


def require_best_checkpoint(folder: Path) -> str:
    """Return the best checkpoint of a finished training.

    Args:
        folder: Folder of the checkpoints.

    Raises:
        MissingFileError: If the training did not select a checkpoint by validation.
    """
    best = json.loads((folder / RUN_FILE).read_text())["best"]
    if best is None:
        raise MissingFileError(
            f"the training in {folder} has no best checkpoint: its config must have a "
            "val_dataloader, and default_hooks.checkpoint.save_best must name a metric"
        )
    return str(folder / best)


def _describe_conflict(
    folder: Path, run: Record, checkpoints: list[Path], resumed: Path | None
) -> str:
    record = read_record(folder)
    state = "a finished training" if record and record["finished"] else "a training"
    lines = [
        f"{folder} contains {state} ({checkpoints[0].name}), and this one would replace its "
        "checkpoints."
    ]
    ways = "Choose another --work-dir, or remove the folder."
    if resumed is not None:
        lines.append(f"It would resume from {resumed}, which is in another folder.")
    elif record is not None:
        changes = find_changes(record, run)
        lines += ["It differs from this one in", *changes] if changes else []
        if not find_changes_for_resume(record, run):
            ways = f"Resume from its last checkpoint with --resume. {ways}"
    return "\n".join([*lines, ways])
