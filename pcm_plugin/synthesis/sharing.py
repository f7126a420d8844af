"""Several processes make the shards of one folder: whoever is free takes the next."""

import contextlib
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence

from tqdm import tqdm

from pcm_plugin.errors import LockedError
from pcm_plugin.formats.locks import file_lock
from pcm_plugin.formats.shards import Shard, ShardFolder
from pcm_plugin.synthesis.ranks import Rank

_POLL_SECONDS = 0.5
_SLOT = struct.Struct("<q")


def claim_shards(
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
    open_ = _pending(folder, wanted)
    if not open_:
        return
    with _Progress(folder, rank, wanted, title, unit) as bar:
        while open_:
            for i in open_:
                with contextlib.ExitStack() as claim:
                    try:
                        claim.enter_context(_claim(folder, wanted[i]))
                    except LockedError:
                        continue
                    folder.refresh()
                    if not _is_finished(folder, wanted[i]):
                        yield i, bar.update
                        bar.next_shard()
            folder.refresh()
            # Of all: on a file system whose locks hold on one machine alone, one that is finished
            # may have been unlisted by another's listing.
            open_ = _pending(folder, wanted)
            if open_:
                time.sleep(_POLL_SECONDS)
                bar.update(0)


def _pending(folder: ShardFolder, wanted: Sequence[Shard]) -> list[int]:
    return [i for i, shard in enumerate(wanted) if not _is_finished(folder, shard)]


def _is_finished(folder: ShardFolder, shard: Shard) -> bool:
    record = folder.manifest["shards"].get(shard.name)
    return record is not None and record["digest"] == shard.digest


@contextlib.contextmanager
def _claim(folder: ShardFolder, shard: Shard) -> Iterator[None]:
    path = folder.path / f".{shard.name}.lock"
    with file_lock(path, blocking=False):
        yield
        # A process that has opened the file before gets no lock on it once it is deleted.
        with contextlib.suppress(PermissionError):  # Windows does not delete an open file
            path.unlink(missing_ok=True)


class _Progress:
    """A bar over all ranks: shards that are listed, and what each rank has of the one in its hands.

    That is in the rank's slot of one small file.
    """

    def __init__(
        self, folder: ShardFolder, rank: Rank, wanted: Sequence[Shard], title: str, unit: str
    ) -> None:
        self._folder, self._rank, self._wanted, self._own = folder, rank, wanted, 0
        self._total = sum(shard.count for shard in wanted)
        self._manifest_time, self._listed = -1, 0
        self._slots = os.open(folder.path / ".progress", os.O_RDWR | os.O_CREAT, 0o666)
        if rank.index == 0:
            # Slots of a run that was killed; who is at work already writes its own anew.
            os.ftruncate(self._slots, 0)
        self._bar = tqdm(
            total=self._total,
            initial=self._count(),
            unit=unit,
            desc=title,
            disable=rank.index != 0,
            smoothing=0.1,
        )

    def __enter__(self) -> "_Progress":
        self.update(0)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        os.close(self._slots)

    def next_shard(self) -> None:
        """The shard in hand is listed, and counts as such."""
        self._own = 0
        self.update(0)

    def update(self, count: int) -> None:
        self._own += count
        os.pwrite(self._slots, _SLOT.pack(self._own), self._rank.index * _SLOT.size)
        if self._rank.index == 0:
            self._bar.update(max(0, min(self._count(), self._total) - self._bar.n))

    def _count(self) -> int:
        changed = (self._folder.path / "manifest.json").stat().st_mtime_ns
        if changed != self._manifest_time:
            self._folder.refresh()
            listed = (s.count for s in self._wanted if _is_finished(self._folder, s))
            self._manifest_time, self._listed = changed, sum(listed)
        data = os.pread(self._slots, self._rank.count * _SLOT.size, 0)
        whole = data[: len(data) // _SLOT.size * _SLOT.size]
        return self._listed + sum(value for (value,) in _SLOT.iter_unpack(whole))
