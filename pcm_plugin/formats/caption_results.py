"""Files of generated captions: COCO results, JSONL, CSV, ``metadata.jsonl`` and text files.

A row is a dict with ``image_id``, ``image`` (file name), ``caption`` and ``log_prob``, and with
``captions`` (dicts with ``caption`` and ``log_prob``, best first) if several were generated.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from pcm_plugin.errors import UserError
from pcm_plugin.formats.atomic_io import atomic_write, write_bytes, write_json_list

Row = Mapping[str, Any]

METADATA = "metadata.jsonl"
"""Name of the file with which ``datasets`` reads a folder of images."""
CSV_COLUMNS = ("image_id", "image", "rank", "caption", "log_prob")


def check_results_file(path: Path, images: Iterable[str]) -> None:
    """Check the name of a file of captions.

    Args:
        path: The file.
        images: Image files.

    Raises:
        UserError: If its suffix is unknown, or an image is not in the folder of
            ``metadata.jsonl``.
    """
    _writer_of(path)
    if path.name == METADATA:
        for image in images:
            _relative(path, image)


def write_results(path: Path, rows: Iterable[Row]) -> None:
    """Write captions in the format of the file name, without holding all rows in memory.

    - ``.json``: COCO results, a list of all values of the rows.
    - ``.jsonl``: the same values, one object per line.
    - ``metadata.jsonl``: ``file_name`` (relative to the file) and ``text`` per line, as Hugging
      Face datasets reads a folder of images.
    - ``.csv``: the columns ``CSV_COLUMNS``, one line per caption; ``rank`` counts the captions
      of an image from 1, the best.

    Args:
        path: File to write; its folder is created.
        rows: See above.

    Raises:
        UserError: As ``check_results_file``.
    """
    write = _writer_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, rows)


def text_file(image: str) -> Path:
    """Return the text file of an image: its name with the suffix ``.txt``."""
    return Path(image).with_suffix(".txt")


def write_text_file(row: Row) -> None:
    """Write the captions of an image to its text file, one per line, best first."""
    lines = [caption["caption"] for caption in _captions(row)]
    write_bytes(text_file(row["image"]), "".join(f"{line}\n" for line in lines).encode())


def _captions(row: Row) -> list[Row]:
    return row.get("captions") or [row]


def _write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    with atomic_write(path) as file:
        for row in rows:
            file.write((json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n").encode())


def _write_metadata(path: Path, rows: Iterable[Row]) -> None:
    _write_jsonl(
        path, ({"file_name": _relative(path, r["image"]), "text": r["caption"]} for r in rows)
    )


def _write_csv(path: Path, rows: Iterable[Row]) -> None:
    with atomic_write(path) as file:
        for values in chain([CSV_COLUMNS], _csv_lines(rows)):
            line = io.StringIO(newline="")
            csv.writer(line, lineterminator="\n").writerow(values)
            file.write(line.getvalue().encode())


def _csv_lines(rows: Iterable[Row]) -> Iterator[list[Any]]:
    for row in rows:
        for rank, caption in enumerate(_captions(row), start=1):
            yield [row["image_id"], row["image"], rank, caption["caption"], caption["log_prob"]]


_WRITERS: dict[str, Callable[[Path, Iterable[Row]], None]] = {
    ".json": write_json_list,
    ".jsonl": _write_jsonl,
    ".csv": _write_csv,
}


def _writer_of(path: Path) -> Callable[[Path, Iterable[Row]], None]:
    if path.name == METADATA:
        return _write_metadata
    try:
        return _WRITERS[path.suffix.lower()]
    except KeyError:
        raise UserError(
            f"the name of a file of captions must end in {', '.join(_WRITERS)}, got {path}"
        ) from None


def _relative(path: Path, image: str) -> str:
    try:
        return Path(image).resolve().relative_to(path.parent.resolve()).as_posix()
    except ValueError:
        raise UserError(
            f"{path} can only list images in its own folder, got {image}: write it to the folder "
            "of the images"
        ) from None
