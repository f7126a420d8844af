"""Tables as JSON, JSONL or CSV files: one object or line per row."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pcm_plugin.errors import UserError
from pcm_plugin.formats.atomic_io import atomic_write, write_json_list

RECORD_SUFFIXES = (".json", ".jsonl", ".csv")


def check_records_file(path: Path) -> None:
    """Check the name of a table file.

    Raises:
        UserError: If its suffix is not one of ``RECORD_SUFFIXES``, or it is a folder.
    """
    if path.suffix.lower() not in RECORD_SUFFIXES:
        raise UserError(f"the name of a table must end in {', '.join(RECORD_SUFFIXES)}, got {path}")
    if path.is_dir():
        raise UserError(f"a table must be a file name, got the folder {path}")


def fill_columns(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with all columns, in the order of their first occurrence; None if missing."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return [{column: row.get(column) for column in columns} for row in rows]


def write_records(
    path: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()
) -> None:
    """Write a table without holding all rows in memory.

    - ``.json``: a list of objects, ``.jsonl``: one object per line, as ``pandas.read_json`` and
      Hugging Face datasets read them. Keys are sorted; None is ``null``.
    - ``.csv``: a line with the names of the columns, then one line per row; None is empty.

    Args:
        path: File to write; its folder is created.
        rows: The rows. Values are those of JSON; in ``.csv`` texts, numbers or None.
        columns: Columns of ``.csv``. Defaults to the keys of the first row.

    Raises:
        UserError: See :func:`check_records_file`.
    """
    check_records_file(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        write_json_list(path, rows)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as binary:
        file = io.TextIOWrapper(binary, encoding="utf-8", newline="", write_through=True)
        try:
            if suffix == ".jsonl":
                for row in rows:
                    file.write(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n")
            else:
                _write_csv(file, rows, columns)
        finally:
            file.detach()  # the binary file is closed by its owner


def _write_csv(
    file: io.TextIOWrapper, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]
) -> None:
    writer = None
    if columns:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(file, [*row], lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
