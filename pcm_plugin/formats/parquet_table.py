"""Parquet files of one data set, read as a single table, row by row.

Rows are numbered from 0 over all files. Requires pyarrow, which the extra ``parquet`` installs.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pcm_plugin.compatibility.arrow_types import is_binary, is_string
from pcm_plugin.errors import UserError

_NUM_SAMPLES = 64  # of a fingerprint
_SAMPLE_BYTES = 1 << 20
_BATCH_ROWS = 16  # in memory at a time: images of 10 MB each still fit


class ParquetRow(NamedTuple):
    """One row of a :class:`ParquetTable`.

    Attributes:
        number: Row number over all files, from 0.
        place: ``'FILE#ROW'``, with the row number in that file.
        values: Value of each requested column; None where it is null.
    """

    number: int
    place: str
    values: dict[str, Any]


def import_pyarrow() -> Any:
    """Import ``pyarrow``, with its ``parquet`` module.

    Raises:
        UserError: If it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            f"reading Parquet files needs pyarrow ({error}): pip install pyarrow, or install "
            "pcm-plugin with its extra `parquet`"
        ) from None
    return pyarrow


class ParquetTable:
    """Several Parquet files as one table.

    Rows are streamed. Memory holds a few rows and one page of a file, for files and row groups of
    any size.

    Args:
        files: The files in order, see :func:`~pcm_plugin.formats.parquet_files.find_parquet_files`.

    Attributes:
        num_rows: Number of rows of all files.

    Raises:
        RuntimeError: If pyarrow is not installed.
        UserError: If a file is not a complete Parquet file, or there are no rows.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._pyarrow = import_pyarrow()
        self.files = list(files)
        self._groups: list[tuple[Path, int]] = []
        starts, self._file_starts, total = [], {}, 0
        for path in self.files:
            self._file_starts[path] = total
            with self._open(path) as file:
                for group in range(file.metadata.num_row_groups):
                    starts.append(total)
                    self._groups.append((path, group))
                    total += file.metadata.row_group(group).num_rows
        self._starts = np.array(starts, dtype=np.int64)
        self.num_rows = total
        if not total:
            raise UserError(f"no rows in {', '.join(map(str, self.files)) or 'no files'}")

    def check_column(self, column: str, kind: str, option: str) -> None:
        """Require a column of one kind in all files.

        Args:
            column: Its name.
            kind: ``'text'``, a column of strings; ``'image'``, of encoded images: binary values,
                or Hugging Face's ``struct<bytes: binary, path: string>``.
            option: Command-line option that names the column, for messages.

        Raises:
            UserError: If a file does not have it; the message names file and columns.
        """
        for path in self.files:
            with self._open(path) as file:
                schema = file.schema_arrow
            if column not in schema.names:
                raise UserError(
                    f"{path} has no column {column!r}, only {schema.names}: name it with {option}"
                )
            actual = schema.field(column).type
            if not (self._is_text(actual) if kind == "text" else self._is_image(actual)):
                expected = (
                    "strings" if kind == "text" else "encoded images, binary or struct{bytes}"
                )
                raise UserError(
                    f"{path}: column {column!r} must be of {expected}, got {actual}: name another "
                    f"with {option}"
                )

    def rows(self, columns: Sequence[str], start: int = 0) -> Iterator[ParquetRow]:
        """Read the rows from ``start`` to the end.

        Strings are returned as UTF-8 bytes, which may be invalid. Structs with ``bytes`` are
        returned as these bytes.

        Args:
            columns: Names of the columns.
            start: Number of the first row. Defaults to 0.

        Raises:
            UserError: If a file is damaged; the message names it and the row.
        """
        if start >= self.num_rows:
            return
        first = int(np.searchsorted(self._starts, start, "right")) - 1
        for index in range(first, len(self._groups)):
            path, group = self._groups[index]
            number, inside = int(self._starts[index]), self._file_starts[path]
            for values in self._group_rows(path, group, columns, number):
                if number >= start:
                    place = f"{path.name}#{number - inside}"
                    yield ParquetRow(number, place, dict(zip(columns, values, strict=True)))
                number += 1

    def _group_rows(
        self, path: Path, group: int, columns: Sequence[str], number: int
    ) -> Iterator[tuple[Any, ...]]:
        try:
            with self._open(path) as file:
                batches = file.iter_batches(
                    _BATCH_ROWS, row_groups=[group], columns=list(columns), use_threads=False
                )
                for batch in batches:
                    read = (self._values(batch.column(column)) for column in columns)
                    yield from zip(*read, strict=True)
                    number += len(batch)
        except (self._pyarrow.ArrowException, OSError) as error:
            row = number - self._file_starts[path]
            raise UserError(
                f"{path} is damaged at or after row {row}: {_one_line(error)}; download it again"
            ) from None

    def _values(self, column: Any) -> list[Any]:
        pa = self._pyarrow
        if pa.types.is_struct(column.type):
            # A null struct has null bytes.
            column = column.flatten()[column.type.get_field_index("bytes")]
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if self._is_text(column.type):
            column = column.cast(pa.large_binary())
        return column.to_pylist()

    def _is_text(self, kind: Any) -> bool:
        types = self._pyarrow.types
        if types.is_dictionary(kind):
            kind = kind.value_type
        return is_string(kind)

    def _is_image(self, kind: Any) -> bool:
        types = self._pyarrow.types
        if types.is_struct(kind):
            index = kind.get_field_index("bytes")
            return index >= 0 and self._is_image(kind.field(index).type)
        if types.is_dictionary(kind):
            kind = kind.value_type
        return is_binary(kind)

    def _open(self, path: Path) -> Any:
        parquet = self._pyarrow.parquet
        try:
            # Without pre-buffering a row group is read page by page.
            return parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
        except (self._pyarrow.ArrowException, OSError) as error:
            if isinstance(error, FileNotFoundError | PermissionError):
                raise
            with open(path, "rb") as file:
                pointer = file.read(40).startswith(b"version https://git-lfs")
            if pointer:
                raise UserError(
                    f"{path} is a Git LFS pointer, not the data: fetch it with `git lfs pull`"
                ) from None
            raise UserError(
                f"{path} is not a complete Parquet file: {_one_line(error)}; download it again"
            ) from None

    def fingerprints(self) -> dict[str, str]:
        """Return a fingerprint of each file by name.

        It covers the size and all bytes of a file of up to 64 MiB. For a larger file it covers 64
        blocks of 1 MiB, including the first and the last, which holds the index of the file.
        """
        return {path.name: _fingerprint(path) for path in self.files}


def _fingerprint(path: Path) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size}\n".encode())
    if size <= _NUM_SAMPLES * _SAMPLE_BYTES:
        starts = list(range(0, size, _SAMPLE_BYTES))
    else:
        last = size - _SAMPLE_BYTES
        starts = [last * index // (_NUM_SAMPLES - 1) for index in range(_NUM_SAMPLES)]
    with open(path, "rb") as file:
        for start in starts:
            file.seek(start)
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
