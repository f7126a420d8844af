"""Journal of a long job, which can be resumed after an interruption."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from filelock import lock_descriptor

from pcm_plugin.errors import LockedError, UserError
from pcm_plugin.formats.locks import explain_lock_errors

SUFFIX = ".partial"


class Journal:
    """Append-only file ``PATH.partial`` of results, one JSON object per line.

    The first line contains the settings that the rows depend on. A job that is started again with
    the same settings continues after the last complete batch. An incomplete line or batch at the
    end is dropped, so that all batches, and the last bits of their scores, equal those of an
    uninterrupted job. Use the journal as a context manager: the file is locked meanwhile.

    Args:
        path: Final file of the job. The journal is written next to it; the folder is created.
        settings: JSON values that the rows depend on; tuples count as lists.
        batch_size: Rows per batch.

    Attributes:
        path (Path): File of the journal.
        count (int): Number of rows.

    Raises:
        OSError: If the file cannot be written.
        LockedError: If another process runs the same job.
        UserError: If it contains rows that were made with other settings; the message names them.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], batch_size: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path.with_name(path.name + SUFFIX)
        self._file = self._lock()
        try:
            self._start, self.count = self._resume(json.loads(json.dumps(settings)), batch_size)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append one batch of rows."""
        lines = (json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)
        self._file.write("".join(lines).encode())
        self._file.flush()
        self.count += len(rows)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Read all rows, in order."""
        with open(self.path, "rb") as file:
            file.seek(self._start)
            yield from map(json.loads, file)

    def remove(self) -> None:
        """Delete the file: its rows are in the final file."""
        self.path.unlink()

    def _lock(self) -> BinaryIO:
        while True:
            file = open(self.path, "a+b")  # noqa: SIM115
            try:
                with explain_lock_errors(self.path):
                    is_locked = lock_descriptor(file.fileno(), blocking=False)
                if not is_locked:
                    file.close()
                    raise LockedError(
                        f"another process is writing {self.path}: wait until it has finished"
                    )
                # Whoever held the lock may have removed the file since it was opened.
                if os.path.samestat(os.fstat(file.fileno()), os.stat(self.path)):
                    return file
            except FileNotFoundError:
                pass
            file.close()

    def _resume(self, settings: dict[str, Any], batch_size: int) -> tuple[int, int]:
        """Return where the rows start, and how many there are."""
        self._file.seek(0)
        first = self._file.readline()
        if first.endswith(b"\n") and not _is_row(first):
            raise UserError(f"{self.path} is not the journal of a job: move it to another folder")
        ends = [len(first)]
        while _is_row(line := self._file.readline()):
            ends.append(ends[-1] + len(line))
        count = (len(ends) - 1) // batch_size * batch_size
        if count:
            self._refuse_changes(first, settings)
            self._file.truncate(ends[count])
            self._file.seek(0, os.SEEK_END)
            return ends[0], count
        # Nothing depends on the settings of a journal without rows.
        header = (json.dumps(settings, ensure_ascii=False, sort_keys=True) + "\n").encode()
        self._file.truncate(0)
        self._file.write(header)
        self._file.flush()
        return len(header), 0

    def _refuse_changes(self, first: bytes, settings: dict[str, Any]) -> None:
        old = json.loads(first)
        keys = sorted(old.keys() | settings.keys())
        changes = [
            f"{key}: {old.get(key)!r} there, {settings.get(key)!r} now"
            for key in keys
            if old.get(key) != settings.get(key)
        ]
        if changes:
            raise UserError(
                f"{self.path} holds the results of an interrupted job with other settings "
                f"({'; '.join(changes)}): repeat that command, or delete the file to start over"
            )


def _is_row(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:  # what a power cut left
        return False
