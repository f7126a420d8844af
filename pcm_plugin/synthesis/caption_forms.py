"""The forms in which caption files come: which one a file has, and a reader for each.

Every reader is a generator over an open binary file that holds one record at a time, so that
memory does not grow with the corpus.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import ijson

from pcm_plugin.datasets.image_ids import strip_image_suffix

COCO = "COCO captions JSON"
KARPATHY = "Karpathy's JSON"
TOKENS = "Flickr token file"
TABLE = "table"
JSONL = "JSONL"
TEXT = "plain text"

_TOKEN_LINE = re.compile(r"(?P<id>(?P<file>[^\t]+)#\d+)\t(?P<text>[^\t]*)")
_DELIMITERS = "\t,;|"
_FILE_NAMES = ("file_name", "image", "image_name")
_START = 1 << 16


class Record(NamedTuple):
    """What a file says of one caption; nothing of it is checked yet.

    Attributes:
        place: Where it stands, for messages: a line's number, or an entry of a JSON document.
        text: The caption, or None if there is none.
        problem: Why there is none.
        id: Its id in the file, or the number of its line.
        image_id: Id of its image in the file.
        file_name: Its image's file.
        split: The split that the file puts it in.
    """

    place: str
    text: Any = None
    problem: str = ""
    id: Any = None
    image_id: Any = None
    file_name: str | None = None
    split: str | None = None


def recognise(file: BinaryIO, column: str, name: str) -> str:
    """Find out which form a file has, by its content.

    Args:
        file: The file, at its start.
        column: The column that holds the captions, if it is a table.
        name: The file's name, for messages; its ending decides nothing, but a table (``.csv``,
            ``.tsv``) without the column is refused rather than read as plain text.

    Returns:
        One of the names above.

    Raises:
        ValueError: If it is none of them.
    """
    start = file.read(_START).decode("utf-8-sig", errors="replace")
    file.seek(0)
    first = next((line.strip("\r") for line in start.split("\n") if line.strip()), "")
    if first.lstrip().startswith("{"):
        return _recognise_json(file, whole_line=first.rstrip().endswith("}"))
    if re.match(r"\s*\[\s*(\{|$)", first):
        raise ValueError(
            "a JSON list: give COCO captions JSON, Karpathy's JSON, JSONL (an object a line), "
            "a table, or plain text"
        )
    if _TOKEN_LINE.fullmatch(first):
        return TOKENS
    _, header = _header(first)
    if column in header:
        return TABLE
    if name.lower().endswith((".csv", ".tsv")):
        raise ValueError(f"no column {column!r} in the first line, which has {header}")
    return TEXT


def _recognise_json(file: BinaryIO, whole_line: bool) -> str:
    found = None
    try:
        for prefix, event, value in ijson.parse(file, multiple_values=True):
            if (prefix, event, value) == ("", "map_key", "annotations"):
                found = COCO
            elif (prefix, event, value) == ("images.item", "map_key", "sentences"):
                found = KARPATHY
            elif (prefix, event) == ("", "end_map"):
                found = JSONL
            if found:
                break
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise ValueError(f"neither JSON nor JSONL: {_one_line(error)}") from None
    finally:
        file.seek(0)
    if found is None:
        raise ValueError("neither JSON nor JSONL: it ends before its first object does")
    if found == JSONL and not whole_line:
        raise ValueError(
            'JSON without "annotations", or "images" with "sentences": neither COCO captions '
            "nor Karpathy's"
        )
    return found


def read_text(file: BinaryIO, column: str) -> Iterator[Record]:
    """Plain text, a caption a line; ids are the numbers of the lines."""
    for number, line in _lines(file):
        if line is None:
            yield Record(str(number), problem="not UTF-8")
        else:
            yield Record(str(number), line, id=number)


def read_tokens(file: BinaryIO, column: str) -> Iterator[Record]:
    """Lines of ``FILE#NUMBER``, a tab and a caption, as Flickr8k and Flickr30k have them."""
    for number, line in _lines(file):
        match = _TOKEN_LINE.fullmatch(line.rstrip("\r\n")) if line else None
        if match:
            name = match["file"]
            yield Record(str(number), match["text"], "", match["id"], _stem(name), name)
        elif line is None:
            yield Record(str(number), problem="not UTF-8")
        elif line.strip():
            problem = f"not FILE#NUMBER, one tab, a caption: {_shortened(line.strip())}"
            yield Record(str(number), problem=problem)
        else:
            yield Record(str(number), "")


def read_table(file: BinaryIO, column: str) -> Iterator[Record]:
    """CSV or TSV whose first line names the columns.

    Beside ``column`` it may have ``id``, ``image_id``, ``split``, and the image's file as
    ``file_name``, ``image`` or ``image_name``. The delimiter is a tab, comma, semicolon or bar.
    """
    lines = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    skipped, first = next((n, line) for n, line in enumerate(lines, start=1) if line.strip())
    delimiter, header = _header(first.strip("\r\n"))
    where = header.index(column)
    # Strict: a stray quote would swallow the rows after it without a word.
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        place = str(skipped + rows.line_num + 1)
        try:
            row = next(rows)
        except StopIteration:
            break
        except csv.Error as error:
            # A quote that is never closed takes lines with it.
            last = skipped + rows.line_num
            lost = f" (lines {place} to {last} are lost)" if last > int(place) else ""
            yield Record(place, problem=f"{error}{lost}")
            continue
        if not row:
            yield Record(place, "")
        elif len(row) != len(header):
            problem = f"{len(row)} fields, the first line has {len(header)}"
            yield Record(place, problem=problem)
        elif any("\udc80" <= char <= "\udcff" for char in row[where]):
            yield Record(place, problem="not UTF-8")
        else:
            known = dict(zip(header, row, strict=True))
            yield _from_fields(place, row[where], known, place)
    lines.detach()


def read_jsonl(file: BinaryIO, column: str) -> Iterator[Record]:
    """A JSON object a line, with the caption under ``column``; other fields as in a table."""
    for number, line in _lines(file):
        if line is not None and not line.strip():
            yield Record(str(number), "")
            continue
        try:
            row = json.loads(line) if line is not None else None
        except (json.JSONDecodeError, RecursionError):
            row = None
        if line is None:
            yield Record(str(number), problem="not UTF-8")
        elif not isinstance(row, dict):
            yield Record(str(number), problem=f"not a JSON object: {_shortened(line)}")
        elif not isinstance(row.get(column), str):
            problem = f"no text under {column!r}, only {sorted(row)}"
            yield Record(str(number), problem=problem)
        else:
            yield _from_fields(str(number), row[column], row, number)


def read_coco(file: BinaryIO, column: str) -> Iterator[Record]:
    """The ``annotations`` of a COCO captions file; ids are those of the annotations."""
    for index, row in enumerate(_items(file, "annotations.item")):
        place = f"annotations[{index}]"
        if not isinstance(row, dict):
            yield Record(place, problem=f"not a JSON object: {_shortened(str(row))}")
        elif not isinstance(row.get("caption"), str):
            yield Record(place, problem=f'no text under "caption", only {sorted(row)}')
        else:
            number = row.get("id", index)
            yield Record(place, row["caption"], "", number, row.get("image_id", number))


def read_karpathy(file: BinaryIO, column: str) -> Iterator[Record]:
    """``dataset_coco.json`` and its like: images with a split and their sentences."""
    for index, image in enumerate(_items(file, "images.item")):
        place = f"images[{index}]"
        sentences = image.get("sentences") if isinstance(image, dict) else None
        if not isinstance(sentences, list) or not isinstance(image.get("filename"), str):
            yield Record(place, problem='no "filename" with "sentences"')
            continue
        name = "/".join(filter(None, (image.get("filepath"), image["filename"])))
        image_id = image.get("cocoid", _stem(image["filename"]))
        for number, sentence in enumerate(sentences):
            inside = f"{place}.sentences[{number}]"
            if not isinstance(sentence, dict) or not isinstance(sentence.get("raw"), str):
                yield Record(inside, problem='no text under "raw"')
                continue
            own = sentence.get("sentid", f"{image_id}#{number}")
            yield Record(inside, sentence["raw"], "", own, image_id, name, image.get("split"))


READERS = {
    COCO: read_coco,
    KARPATHY: read_karpathy,
    TOKENS: read_tokens,
    TABLE: read_table,
    JSONL: read_jsonl,
    TEXT: read_text,
}


def _from_fields(place: str, text: str, row: dict[str, Any], number: Any) -> Record:
    given = {key: value for key, value in row.items() if value not in (None, "")}
    name = next((str(given[key]) for key in _FILE_NAMES if key in given), None)
    own = given.get("id", number)
    image_id = given.get("image_id", own if name is None else _stem(name))
    return Record(place, text, "", own, image_id, name, given.get("split"))


def _stem(name: str) -> str:
    return strip_image_suffix(name)


def _items(file: BinaryIO, prefix: str) -> Iterator[Any]:
    try:
        # Numbers as floats would be, not as Decimal: ids are compared and written as JSON.
        yield from ijson.items(file, prefix, use_float=True)
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise ValueError(f"broken JSON: {_one_line(error)}") from None


def _lines(file: BinaryIO) -> Iterator[tuple[int, str | None]]:
    for number, line in enumerate(file, start=1):
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            yield number, None


def _header(first: str) -> tuple[str, list[str]]:
    """The delimiter that parts a first line most, and the fields that it makes."""
    parted = {mark: next(csv.reader([first], delimiter=mark), []) for mark in _DELIMITERS}
    mark = max(parted, key=lambda mark: len(parted[mark]))
    return mark, [field.strip() for field in parted[mark]]


def _shortened(line: str) -> str:
    return repr(line.strip()[:60])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
