"""Caption files that are read line by line: plain text, Flickr token files and JSONL."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pcm_plugin.formats.atomic_io import atomic_write
from pcm_plugin.formats.captions.record import IMAGE_FILE, Caption, Record, shorten
from pcm_plugin.formats.captions.values import from_json
from pcm_plugin.formats.text.errors import FileFormatError, not_utf8

TOKEN_LINE = re.compile(
    r"\s*(?P<id>(?P<file>[^\t]*?[^\t#])(?:#\w+)?\s?#\d+)\s*\t\s*(?P<text>[^\t]*)"
    r"|\s*(?P<id_2>(?P<file_2>[^\s#]+)(?:#\w+)?#\d+) +(?P<text_2>[^\t]*)"
)
"""Line of a Flickr token file, ``FILE#NUMBER`` or ``FILE#LANGUAGE#NUMBER`` and the caption."""

_TOKEN_WITHIN = re.compile(rf"{IMAGE_FILE.pattern}(?:#\w+)?#\d+\s", re.IGNORECASE)


def read_lines(file: BinaryIO) -> Iterator[tuple[int, str | FileFormatError]]:
    """Yield number and text of each line of a UTF-8 file, or the error for an invalid line."""
    offset = 0
    for number, data in enumerate(file, start=1):
        try:
            line: str | FileFormatError = data.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            line = not_utf8(data, error.start, offset + error.start)
        if isinstance(line, str) and "\x00" in line:
            line = FileFormatError("a NUL byte: the file is damaged")
        elif isinstance(line, str) and "\r" in line:
            line = FileFormatError("a carriage return within the line: the file mixes line ends")
        yield number, line
        offset += len(data)


def invalid_line(number: int, error: FileFormatError) -> Record:
    """Return the record of a line that cannot be read."""
    return Record(str(number), number, problem=error.problem, fixes=error.fixes)


def read_text(open_file: Callable[[], BinaryIO], column: str) -> Iterator[Record]:
    """Read plain text, one caption per line."""
    for number, line in _numbered(open_file):
        if isinstance(line, FileFormatError):
            yield invalid_line(number, line)
        else:
            yield Record(str(number), number, line)


def read_tokens(open_file: Callable[[], BinaryIO], column: str) -> Iterator[Record]:
    """Read the token files of Flickr8k and Flickr30k, and Flickr8k-CN's."""
    for number, line in _numbered(open_file):
        if isinstance(line, FileFormatError):
            yield invalid_line(number, line)
        elif not line.strip():
            yield Record(str(number), number, "")
        else:
            yield _token_record(number, line)


def _token_record(number: int, line: str) -> Record:
    match = TOKEN_LINE.fullmatch(line)
    if match is None:
        problem = f"not FILE#NUMBER, one tab, a caption: {shorten(line)}"
        return Record(str(number), number, problem=problem)
    own, name, text = (match[group] or match[f"{group}_2"] for group in ("id", "file", "text"))
    if _TOKEN_WITHIN.search(text or ""):
        problem = f"two records in one line: {shorten(text)}"
        return Record(str(number), number, problem=problem)
    return Record(str(number), number, text, id=own, file_name=name.strip())


def read_jsonl(open_file: Callable[[], BinaryIO], column: str) -> Iterator[Record]:
    """Read JSONL: an object with ``column``, a text, or a pair of image and text per line."""
    for number, line in _numbered(open_file):
        if isinstance(line, FileFormatError):
            yield invalid_line(number, line)
            continue
        if not line.strip():
            yield Record(str(number), number, "")
            continue
        value: Any = None
        try:
            value = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            yield Record(str(number), number, problem=f"not JSON: {shorten(line)}")
            continue
        yield from from_json(str(number), number, value, column)


def write_jsonl(captions: Iterable[Caption], path: Path) -> int:
    """Write captions as JSONL that :func:`read_jsonl` reads, one at a time.

    Args:
        captions: Captions to write.
        path: File to write; its folder is created.

    Returns:
        Number of captions.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with atomic_write(path) as file:
        for caption in captions:
            row = {"id": caption.id, "image_id": caption.image_id, "caption": caption.text}
            if caption.file_name is not None:
                row["file_name"] = caption.file_name
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
            count += 1
    return count


def _numbered(open_file: Callable[[], BinaryIO]) -> Iterator[tuple[int, str | FileFormatError]]:
    with open_file() as file:
        yield from read_lines(file)
