"""Reader of many byte ranges from many files."""

import os
from collections import OrderedDict
from pathlib import Path

from pcm_plugin.errors import UserError

try:
    import resource
except ImportError:  # Windows, where the C library allows 512 open files
    _MAX_OPEN_FILES = 128
else:
    _MAX_OPEN_FILES = min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)

_HAS_PREAD = hasattr(os, "preadv")
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)
_BINARY = getattr(os, "O_BINARY", 0)  # Windows

FileId = tuple[int, ...]
"""Device, inode and size of a file."""


def file_id(status: os.stat_result) -> FileId:
    """Return the identity of a file, which changes when the file is replaced."""
    return status.st_dev, status.st_ino, status.st_size


class PieceReader:
    """Reads byte ranges of files and keeps the files that were read last open.

    A store may have more shards than a process may have open files.

    Args:
        paths: The files.

    Attributes:
        expected_ids: Identity that a file must have, by its index. Set it before reading the file.
    """

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.expected_ids: dict[int, FileId] = {}
        self._descriptors: OrderedDict[int, int] = OrderedDict()

    def read(self, pieces: list[tuple[int, int, memoryview]]) -> None:
        """Fill buffers from files; several processes may do so at the same time.

        Args:
            pieces: For each range the index of the file, the offset in bytes, and the buffer.

        Raises:
            UserError: If a file is shorter than expected, or was replaced.
        """
        pieces = sorted(pieces, key=lambda piece: piece[:2])
        # Copy what is in the page cache. Request all other ranges before waiting for the first of
        # them, since a disk has a queue.
        pending = [piece for piece in pieces if not self._read_cached(*piece)]
        if hasattr(os, "posix_fadvise"):
            for index, offset, target in pending:
                descriptor = self._descriptor(index)
                os.posix_fadvise(descriptor, offset, len(target), os.POSIX_FADV_WILLNEED)
        for index, offset, target in pending:
            while target:
                count = _read_into(self._descriptor(index), target, offset)
                if not count:
                    raise UserError(
                        f"{self.paths[index]} is cut: run the command that made it again"
                    )
                target, offset = target[count:], offset + count

    def _read_cached(self, index: int, offset: int, target: memoryview) -> bool:
        """Read a range if that does not wait for the disk; return whether it was read."""
        if not _NOWAIT:
            return False
        try:
            return os.preadv(self._descriptor(index), [target], offset, _NOWAIT) == len(target)
        except OSError:  # not cached, or the file system cannot tell
            return False

    def _descriptor(self, index: int) -> int:
        descriptor = self._descriptors.get(index)
        if descriptor is None:
            if len(self._descriptors) >= _MAX_OPEN_FILES:
                os.close(self._descriptors.popitem(last=False)[1])
            descriptor = os.open(self.paths[index], os.O_RDONLY | _BINARY)
            if file_id(os.fstat(descriptor)) != self.expected_ids[index]:
                os.close(descriptor)
                raise UserError(
                    f"{self.paths[index]} was changed since the store was opened: open it again"
                )
            self._descriptors[index] = descriptor
        else:
            self._descriptors.move_to_end(index)
        return descriptor

    def __del__(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)


def _read_into(descriptor: int, target: memoryview, offset: int) -> int:
    if _HAS_PREAD:
        return os.preadv(descriptor, [target], offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    data = os.read(descriptor, len(target))
    target[: len(data)] = data
    return len(data)
