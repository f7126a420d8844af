"""Tables as JSON, JSONL or CSV files: one object or line per row."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pcm_plugin.errors import UserError
from pcm_plugin.formats.atomic_io import write_bytes

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


def write_records(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table.

    - ``.json``: a list of objects, ``.jsonl``: one object per line, as ``pandas.read_json`` and
      Hugging Face datasets read them. Missing values are ``null``.
    - ``.csv``: one column per key, in the order of their first occurrence. Missing values are
      empty.

    Args:
        path: File to write; its folder is created.
        rows: The rows. Values are text, numbers or None.

    Raises:
        UserError: See :func:`check_records_file`.
    """
    check_records_file(path)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    filled = [{column: row.get(column) for column in columns} for row in rows]
    buffer = io.StringIO(newline="")
    if path.suffix.lower() == ".csv":
        writer = csv.DictWriter(buffer, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(filled)
    elif path.suffix.lower() == ".jsonl":
        buffer.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in filled)
    else:
        buffer.write(json.dumps(filled, ensure_ascii=False, indent=1) + "\n")
    write_bytes(path, buffer.getvalue().encode())
