"""Several processes make the shards of one folder: whoever is free takes the next."""

import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from tqdm import tqdm

from pcm_plugin.datasets.shards import Shard, ShardFolder
from pcm_plugin.synthesis.ranks import Rank

_POLL_SECONDS = 0.5
_SLOT = struct.Struct("<q")


def share(
    folder: ShardFolder, wanted: Sequence[Shard], rank: Rank, title: str, unit: str = "img"
) -> Iterator[tuple[int, Callable[[int], None]]]:
    """Take shards in turn with all processes that work on the folder, until all are finished.

    A shard is taken under a lock that the system releases when its holder dies, so that others
    make what a lost process had begun. This process waits for the shards that others hold.
    One progress bar, the first rank's, counts for all.

    Args:
        folder: The folder; a shard is finished when it is listed there with its digest.
        wanted: All shards, the same for all processes.
        rank: Which of the processes this is.
        title: What the progress bar says.
        unit: What it counts. Defaults to ``'img'``.

    Yields:
        Index of a shard to make, and a function that takes the number of samples done since the
        last call. The caller lists the shard before it asks for the next.
    """

    def finished(shard: Shard) -> bool:
        record = folder.manifest["shards"].get(shard.name)
        return record is not None and record["digest"] == shard.digest

    open_ = [i for i, shard in enumerate(wanted) if not finished(shard)]
    if not open_:
        return
    done = sum(shard.count for shard in wanted) - sum(wanted[i].count for i in open_)
    with (
        open(folder.path / ".claims", "ab") as claims,
        _Progress(folder, rank, sum(shard.count for shard in wanted), done, title, unit) as bar,
    ):
        while open_:
            held = []
            for i in open_:
                if not _take(claims, i):
                    held.append(i)
                    continue
                folder.reload()
                if not finished(wanted[i]):
                    yield i, bar.update
                _release(claims, i)
            folder.reload()
            open_ = [i for i in held if not finished(wanted[i])]
            if open_:
                time.sleep(_POLL_SECONDS)
                bar.update(0)


def _take(claims: BinaryIO, i: int) -> bool:
    try:
        fcntl.lockf(claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, i)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _release(claims: BinaryIO, i: int) -> None:
    fcntl.lockf(claims, fcntl.LOCK_UN, 1, i)


class _Progress:
    """A bar over all ranks: each writes what it has done into its slot of one small file."""

    def __init__(
        self, folder: ShardFolder, rank: Rank, total: int, done: int, title: str, unit: str
    ) -> None:
        self._rank, self._total, self._before, self._own = rank, total, done, 0
        self._slots = os.open(folder.path / ".progress", os.O_RDWR | os.O_CREAT, 0o666)
        self._bar = tqdm(
            total=total, initial=done, unit=unit, desc=title, disable=rank.index != 0, smoothing=0.1
        )

    def __enter__(self) -> "_Progress":
        self.update(0)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        os.close(self._slots)

    def update(self, count: int) -> None:
        self._own += count
        os.pwrite(self._slots, _SLOT.pack(self._own), self._rank.index * _SLOT.size)
        if self._rank.index == 0:
            data = os.pread(self._slots, self._rank.count * _SLOT.size, 0)
            whole = data[: len(data) // _SLOT.size * _SLOT.size]
            now = self._before + sum(value for (value,) in _SLOT.iter_unpack(whole))
            self._bar.update(min(now, self._total) - self._bar.n)
