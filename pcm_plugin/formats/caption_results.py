"""Files of generated captions: COCO results, JSONL, CSV, ``metadata.jsonl`` and text files.

A row is a dict with ``image_id``, ``image`` (file name), ``caption`` and ``log_prob``, and with
``captions`` (dicts with ``caption`` and ``log_prob``, best first) if several were generated. A row
of a region has ``box`` or ``point``, a list of numbers, and may have ``region_id``.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pcm_plugin.errors import UserError
from pcm_plugin.formats.atomic_io import write_bytes
from pcm_plugin.formats.records import check_records_file, write_records

Row = Mapping[str, Any]

METADATA = "metadata.jsonl"
"""Name of the file with which ``datasets`` reads a folder of images."""
CSV_COLUMNS = ("image_id", "image", "rank", "caption", "log_prob")
REGION_COLUMNS = ("image_id", "image", "region_id", "box", "point", *CSV_COLUMNS[2:])


def check_results_file(path: Path, images: Iterable[str]) -> None:
    """Check the name of a file of captions.

    Args:
        path: The file.
        images: Image files.

    Raises:
        UserError: If its suffix is unknown, or an image is not in the folder of
            ``metadata.jsonl``.
    """
    check_records_file(path)
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
    if path.name == METADATA:
        names = ((_relative(path, row["image"]), row["caption"]) for row in rows)
        write_records(path, ({"file_name": name, "text": text} for name, text in names))
    elif path.suffix.lower() == ".csv":
        write_records(path, _csv_rows(rows, CSV_COLUMNS), CSV_COLUMNS)
    else:
        write_records(path, rows)


def write_region_results(path: Path, rows: Iterable[Row]) -> None:
    """Write captions of regions, as :func:`write_results` those of images.

    Args:
        path: File to write, ``.json``, ``.jsonl`` or ``.csv``; its folder is created. ``.csv`` has
            the columns ``REGION_COLUMNS``; the numbers of a region are separated by spaces.
        rows: See above.

    Raises:
        UserError: If the suffix is unknown, or the name is ``metadata.jsonl``.
    """
    check_region_results_file(path)
    if path.suffix.lower() == ".csv":
        write_records(path, _csv_rows(map(_region_row, rows), REGION_COLUMNS), REGION_COLUMNS)
    else:
        write_records(path, rows)


def check_region_results_file(path: Path) -> None:
    """Check the name of a file of captions of regions; see :func:`write_region_results`."""
    check_records_file(path)
    if path.name == METADATA:
        raise UserError(f"{METADATA} has one text per image, not per region: write another .jsonl")


def text_file(image: str) -> Path:
    """Return the text file of an image: its name with the suffix ``.txt``."""
    return Path(image).with_suffix(".txt")


def write_text_file(row: Row) -> None:
    """Write the captions of an image to its text file, one per line, best first."""
    lines = [caption["caption"] for caption in _captions(row)]
    write_bytes(text_file(row["image"]), "".join(f"{line}\n" for line in lines).encode())


def _captions(row: Row) -> list[Row]:
    return row.get("captions") or [row]


def _region_row(row: Row) -> Row:
    """Return a row with the numbers of its region as a text."""
    texts = {key: " ".join(map(str, row[key])) for key in ("box", "point") if key in row}
    return {"region_id": None, "box": None, "point": None, **row, **texts}


def _csv_rows(rows: Iterable[Row], columns: Sequence[str]) -> Iterator[Row]:
    for row in rows:
        for rank, caption in enumerate(_captions(row), start=1):
            values = {**row, "rank": rank, **caption}
            yield {column: values[column] for column in columns}


def _relative(path: Path, image: str) -> str:
    try:
        # Links are not followed: a linked image is read under its name in the folder.
        folder = os.path.abspath(path.parent)
        return Path(os.path.abspath(image)).relative_to(folder).as_posix()
    except ValueError:
        raise UserError(
            f"{path} can only list images in its own folder, got {image}: write it to the folder "
            "of the images"
        ) from None
