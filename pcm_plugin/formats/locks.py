"""Locks between processes.

They are locks of the operating system, taken through ``filelock``: the system releases them when
their holder dies, however that happens, so a killed process never blocks the next one. A process
forked from the holder does not inherit them.
"""

import contextlib
import errno
import os
from collections.abc import Iterator

from filelock import FileLock, Timeout

from pcm_plugin.errors import LockedError, UserError

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_POLL_SECONDS = 0.01


@contextlib.contextmanager
def file_lock(path: str | os.PathLike, blocking: bool = True) -> Iterator[None]:
    """Hold an exclusive lock for the duration of the block.

    Args:
        path: The lock file; it is created, and left in place.
        blocking: Whether to wait for another holder. Defaults to True.

    Raises:
        LockedError: If another process, or another lock of this process, holds the lock and
            ``blocking`` is False.
        UserError: If the file system has no locks.
    """
    # A lock file without a lock of the system would outlive a killed process.
    lock = FileLock(path, fallback_to_soft=False)
    try:
        with explain_lock_errors(path):
            lock.acquire(blocking=blocking, poll_interval=_POLL_SECONDS)
    except Timeout:
        raise LockedError(f"another process holds the lock {os.fspath(path)}") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def explain_lock_errors(path: str | os.PathLike) -> Iterator[None]:
    """Explain the error of a file system without locks.

    Raises:
        UserError: If the file system of ``path`` has no locks.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise UserError(
                f"the file system of {path} has no locks ({error.strerror}): mount it with locks "
                "(Lustre: -o flock; NFS: with lockd, or version 4), or use another file system"
            ) from None
        raise
