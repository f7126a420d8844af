"""Distribution of shards over processes: each process claims the next free one."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from tqdm import tqdm

from pcm_plugin.errors import LockedError
from pcm_plugin.formats.locks import file_lock
from pcm_plugin.formats.shards import Shard, ShardFolder
from pcm_plugin.synthesis.ranks import Rank

_POLL_SECONDS = 0.5


def claim_shards(
    folder: ShardFolder, wanted: Sequence[Shard], rank: Rank, title: str, unit: str = "img"
) -> Iterator[tuple[int, Callable[[int], None]]]:
    """Claim the unfinished shards of a folder one at a time, until all are finished.

    All processes that work on the folder share the shards. A claim is a lock that the operating
    system releases when its holder dies, so the other processes also make the shards of a process
    that was killed. At the end, each process waits for the shards that others have claimed.

    The first rank shows a progress bar, which counts the finished shards of all ranks, as the
    manifest lists them, and the samples of its own unfinished shard.

    Args:
        folder: The folder. A shard is finished when the manifest lists it with its digest.
        wanted: All shards, the same for all processes.
        rank: Rank of this process.
        title: Title of the progress bar.
        unit: What ``Shard.count`` counts. Defaults to ``'img'``.

    Yields:
        Index of a shard to make, and a function to call with the number of samples done since its
        last call. The caller must commit the shard before it requests the next one.
    """
    pending = _pending(folder, wanted)
    if not pending:
        return
    with _ProgressBar(folder, wanted, rank, title, unit) as bar:
        while pending:
            for i in pending:
                with contextlib.ExitStack() as claim:
                    try:
                        claim.enter_context(_claim(folder, wanted[i]))
                    except LockedError:
                        continue
                    folder.refresh()
                    if not _is_finished(folder, wanted[i]):
                        yield i, bar.update
                        bar.finish_shard()
            folder.refresh()
            # Check all shards again: where locks only hold on one machine, a process of another
            # machine may have overwritten the manifest with one that lacks a finished shard.
            pending = _pending(folder, wanted)
            if pending:
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


class _ProgressBar:
    """Progress bar of the first rank: finished shards of all ranks and its own unfinished one."""

    def __init__(
        self, folder: ShardFolder, wanted: Sequence[Shard], rank: Rank, title: str, unit: str
    ) -> None:
        self._folder, self._wanted = folder, wanted
        self._is_shown = rank.index == 0
        self._total = sum(shard.count for shard in wanted)
        self._manifest_time, self._finished, self._unfinished = -1, 0, 0
        self._bar = tqdm(
            total=self._total,
            initial=self._count(),
            unit=unit,
            desc=title,
            disable=not self._is_shown,
            smoothing=0.1,
        )

    def __enter__(self) -> "_ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, count: int) -> None:
        """Count samples of the unfinished shard."""
        self._unfinished += count
        if self._is_shown:
            # A bar never runs backwards, even if a shard is made a second time.
            self._bar.update(max(0, min(self._count(), self._total) - self._bar.n))

    def finish_shard(self) -> None:
        """Count the shard as the manifest lists it."""
        self._unfinished = 0
        self.update(0)

    def _count(self) -> int:
        modified = (self._folder.path / "manifest.json").stat().st_mtime_ns
        if modified != self._manifest_time:
            self._folder.refresh()
            finished = (s.count for s in self._wanted if _is_finished(self._folder, s))
            self._manifest_time, self._finished = modified, sum(finished)
        return self._finished + self._unfinished
