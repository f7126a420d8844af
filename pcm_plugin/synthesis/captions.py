"""Captions in: text files of several forms, told apart by their content."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pcm_plugin.datasets.coco import CocoImage, read_coco_images, write_coco_captions

__all__ = ["Caption", "CocoImage", "read_captions", "read_coco_images", "write_coco_captions"]


class Caption(NamedTuple):
    """A caption and whose it is.

    Attributes:
        id: The caption's id; the seed of its synthetic image depends on it.
        image_id: Id of the image that was described; the caption's own if the file names none.
        text: The sentence, its white space single.
    """

    id: str
    image_id: str
    text: str


def read_captions(path: str | os.PathLike) -> Iterator[Caption]:
    """Read the captions of a file.

    Three forms are recognised by content, whatever the file's name:

    - COCO captions JSON; ids are those of the annotations;
    - JSONL: a JSON object a line, with ``caption`` and optionally ``id`` and ``image_id``; an id
      that is missing is the number of the line;
    - plain text, a caption a line; ids are the numbers of the lines, from 1.

    Lines with nothing but white space are passed over.

    Args:
        path: A UTF-8 file.

    Yields:
        The captions in the order of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line cannot be read; the message starts with file and line number.
    """
    path = Path(path)
    first = next((line for _, line in _lines(path)), "")
    head = _json_or_none(first)
    if first == "[" or (isinstance(head, list) and any(isinstance(row, dict) for row in head)):
        raise ValueError(
            f"{path}: a JSON list: give COCO captions JSON, JSONL (an object a line), or plain text"
        )
    if isinstance(head, dict) and "annotations" not in head:
        yield from _read_jsonl(path)
    elif first.startswith("{"):
        yield from _read_coco(path)
    else:
        for number, line in _lines(path):
            yield Caption(str(number), str(number), " ".join(line.split()))


def _read_jsonl(path: Path) -> Iterator[Caption]:
    for number, line in _lines(path):
        row = _json_or_none(line)
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{number}: not a JSON object: {line[:60]!r}")
        text = _text(row, f"{path}:{number}")
        own = str(row.get("id", number))
        if text:
            yield Caption(own, str(row.get("image_id", own)), text)


def _read_coco(path: Path) -> Iterator[Caption]:
    try:
        annotations = json.loads(path.read_text(encoding="utf-8"))["annotations"]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: neither JSON nor JSONL: {error.msg}") from None
    except KeyError:
        raise ValueError(f'{path}: JSON without "annotations": not COCO captions') from None
    for number, row in enumerate(annotations):
        text = _text(row, f"{path}: annotations[{number}]")
        own = str(row.get("id", number))
        if text:
            yield Caption(own, str(row.get("image_id", own)), text)


def _text(row: Any, place: str) -> str:
    if not isinstance(row, dict):
        raise ValueError(f"{place}: not a JSON object: {str(row)[:60]!r}")
    text = row.get("caption")
    if not isinstance(text, str):
        raise ValueError(f'{place}: no "caption", only {sorted(row)}')
    return " ".join(text.split())


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}:{number}: not UTF-8: {error.reason}") from None
            if text:
                yield number, text


def _json_or_none(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None
