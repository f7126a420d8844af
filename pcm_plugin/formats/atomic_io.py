"""Atomic file writing, JSON and hashes of content.

A file is either complete or absent, whatever kills its writer. Equal content gives equal bytes.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from filelock import lock_descriptor

from pcm_plugin.errors import LockedError
from pcm_plugin.formats.locks import explain_lock_errors

_DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file, and rename it to ``path`` once it is written and synced.

    If the block raises, ``path`` does not change. The temporary file of a killed process is
    overwritten by the next writer of the same path on the same machine.

    Args:
        path: File to create or replace; its folder must exist.

    Yields:
        A binary file for writing, which can also be read and sought.

    Raises:
        LockedError: If another process is writing the same path at the same time.
        OSError: If the disk is full; the error names the path.
    """
    # The name contains the machine since not all network file systems lock across machines.
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.part")
    try:
        with _lock_temporary_file(temporary, path) as file:
            try:
                file.truncate(0)
                yield file
                file.flush()
                os.fsync(file.fileno())
                _close_on_windows(file)
                os.replace(temporary, path)
            except BaseException:
                _close_on_windows(file)
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        # The error of a full disk does not name a file.
        if error.errno in _DISK_FULL_ERRNOS and error.filename is None:
            error.filename = str(path)
        raise
    _sync_folder(path.parent)


@contextlib.contextmanager
def _lock_temporary_file(temporary: Path, path: Path) -> Iterator[BinaryIO]:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
    while True:
        with open(os.open(temporary, flags, 0o666), "r+b") as file:
            with explain_lock_errors(path):
                is_locked = lock_descriptor(file.fileno(), blocking=False)
            if not is_locked:
                raise LockedError(f"another process is writing {path}: wait until it has finished")
            # Another writer may have renamed the file between opening and locking it.
            if _is_at(file, temporary):
                yield file
                return


def _close_on_windows(file: BinaryIO) -> None:
    # Windows neither renames nor deletes an open file. Elsewhere the lock is kept until the rename.
    if os.name == "nt":
        file.close()


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def write_bytes(path: Path, data: bytes) -> None:
    """Write a small file atomically; its folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(data)


def copy_file(source: Path, target: Path) -> None:
    """Copy the content of a file atomically."""
    with open(source, "rb") as old, atomic_write(target) as new:
        shutil.copyfileobj(old, new)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, with sorted keys and a final newline."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode())


def write_json_list(path: Path, values: Iterable[Any]) -> None:
    """Write a JSON list as :func:`write_json` does, without holding all values in memory."""
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
    """Return the SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def folder_sha256(path: Path) -> str:
    """Return the SHA-256 of the files in a folder and their names.

    Hidden files and model cards (``.md``) do not count.
    """
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        inside = file.relative_to(path)
        hidden = any(part.startswith(".") for part in inside.parts)
        if file.is_file() and not hidden and file.suffix != ".md":
            digest.update(f"{inside.as_posix()} {sha256(file)}\n".encode())
    return digest.hexdigest()


def content_id(folder: Path) -> str:
    """Return a name for a local model that depends on its content but not on its location."""
    return f"{folder.resolve().name} (sha256 {folder_sha256(folder)[:16]})"


def fingerprint(value: Any) -> str:
    """Return 16 hexadecimal digits that identify a JSON value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _sync_folder(folder: Path) -> None:
    # A rename survives a power failure only once the folder itself is on disk.
    if os.name == "nt":  # cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
