"""Files that are there whole or not at all, whatever kills the writer."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pcm_plugin.errors import LockedError, UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside ``path`` and put it in its place once it is written and synced.

    Left by an exception, nothing changes at ``path``. What a killed process left beside it is
    overwritten by the next writer of the same path on the same machine.

    Args:
        path: The file to make or replace; its folder must exist.

    Yields:
        A binary file to write to; it can be read and sought too.

    Raises:
        LockedError: If another process is writing the same path at this moment.
        OSError: If the disk is full; it names the path.
    """
    # The machine is in its name: not all network file systems lock across machines.
    beside = path.with_name(f".{path.name}.{socket.gethostname()}.part")
    try:
        with _claimed(beside, path) as file:
            try:
                file.truncate(0)
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.replace(beside, path)
            except BaseException:
                beside.unlink(missing_ok=True)
                raise
    except OSError as error:
        # Of a full disk the system does not say which.
        if error.errno in _FULL and error.filename is None:
            error.filename = str(path)
        raise
    _sync_folder(path.parent)


@contextlib.contextmanager
def _claimed(beside: Path, path: Path) -> Iterator[BinaryIO]:
    """A locked file that still has its name: who waited for another's has lost it to a rename."""
    while True:
        with open(os.open(beside, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
            try:
                with explain_lock_errors(path):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LockedError(f"another process is writing {path}: let it end first") from None
            if _is_at(file, beside):
                yield file
                return


@contextlib.contextmanager
def explain_lock_errors(path: str | os.PathLike) -> Iterator[None]:
    """Say what is wrong where a file system knows no locks.

    Raises:
        UserError: If that is what the system says.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise UserError(
                f"the file system of {path} knows no locks ({error.strerror}): mount it with them "
                "(Lustre: -o flock; NFS: with lockd, or version 4), or take another"
            ) from None
        raise


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def write_bytes(path: Path, data: bytes) -> None:
    """Write a small file through :func:`atomic_write`; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(data)


def copy_file(source: Path, target: Path) -> None:
    """Copy the content of a file through :func:`atomic_write`."""
    with open(source, "rb") as old, atomic_write(target) as new:
        shutil.copyfileobj(old, new)


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys and a final newline, so that equal values are equal bytes."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode())


def write_json_list(path: Path, values: Iterable[Any]) -> None:
    """Write what :func:`write_json` writes of a list, one value at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        separator = "["
        for value in values:
            text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
            indented = text.replace("\n", "\n ")  # a JSON string contains no line break
            file.write(f"{separator}\n {indented}".encode())
            separator = ","
        file.write(b"[]\n" if separator == "[" else b"\n]\n")


def sha256(path: Path) -> str:
    """The SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def folder_sha256(path: Path) -> str:
    """The SHA-256 of a folder's files and their names; hidden ones and cards (.md) left out."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        inside = file.relative_to(path)
        hidden = any(part.startswith(".") for part in inside.parts)
        if file.is_file() and not hidden and file.suffix != ".md":
            digest.update(f"{inside.as_posix()} {sha256(file)}\n".encode())
    return digest.hexdigest()


def content_id(folder: Path) -> str:
    """A name for a local model that holds wherever it lies, and changes with its content."""
    return f"{folder.resolve().name} (sha256 {folder_sha256(folder)[:16]})"


def fingerprint(value: Any) -> str:
    """A short name for a JSON value: equal values and only they share it."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _sync_folder(folder: Path) -> None:
    # A rename is only safe from a power cut once the folder itself is on disk.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
