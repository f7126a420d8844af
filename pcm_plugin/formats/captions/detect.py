"""Detect the format of a caption file from its content."""

import json
import re
from collections.abc import Callable
from typing import Any, BinaryIO

from pcm_plugin.formats.captions.json_documents import read_events
from pcm_plugin.formats.captions.lines import TOKEN_LINE
from pcm_plugin.formats.captions.parquet import PARQUET_MAGIC
from pcm_plugin.formats.captions.record import IMAGE_FILE, likely_column, names_image
from pcm_plugin.formats.captions.table import DELIMITERS, check_columns, read_header
from pcm_plugin.formats.captions.table_rows import Header
from pcm_plugin.formats.text.errors import FileFormatError, not_utf8
from pcm_plugin.formats.text.text_file import HEAD

_MAX_LINES = 200  # of the sample

_FIELD = "caption|captions|comment|sentence|text|description|raw|title|id|key|name|index|split"
_FIELD += "|(?:image|img|file|caption|comment|sentence)[ _-]?(?:id|name|file|path|number|url)"
_FIELD += "|image|img|file|filename|filepath|path|url|label"
_FIELD_NAME = re.compile(_FIELD, re.IGNORECASE)
_SUFFIX = IMAGE_FILE.pattern.removeprefix(r"\S.*")
_PATTERNS = [
    ("begin with the name of an image file", rf'"?[^\s,;|"]+{_SUFFIX}"?(?:#\w+)*([\s,;|:]|$)', 0.5),
    ("end with the name of an image file", rf'.*[\s,;|:]"?[^\s,;|"]+{_SUFFIX}"?$', 0.5),
    ("begin with an id or a number", r'"?[^\s,;|"]*\d[^\s,;|"]*"?\s*[,;|\t:]|\S*\d\S*\s', 0.8),
    ("are tags", r"<[/\w!?]", 0.5),
    ("are times, as in subtitles", r"[\d:.,]+ --> [\d:.,]+|WEBVTT", 0.3),
    ("have no letters", r"[\W\d_]+$", 0.5),
    ("are JSON, Python or other code", r"[{\[(].*[}\])],?$|[}\])],?$|[{\[(]$", 0.8),
    ("are names and values, as in YAML", r"(?:- )?[A-Za-z_][\w-]*\s*[:=](?:\s|$)", 0.8),
]
_STRUCTURES = [(kind, re.compile(p, re.IGNORECASE), least) for kind, p, least in _PATTERNS]
_JSON_START = re.compile(r"\{\s*(?:[\"}]|$)|\[\s*(?:[\[{\"\]]|$)")


def detect_format(open_file: Callable[[], BinaryIO], column: str, name: str) -> str:
    """Detect the format of a file.

    A file with several lines and no other structure is plain text; for a file named ``.txt`` one
    line is enough.

    Args:
        open_file: Opens the file as UTF-8.
        column: Column that holds the captions if the file is a table.
        name: File name. Its suffix is only used to decide about plain text.

    Returns:
        A key of :data:`~pcm_plugin.formats.captions.FORMATS`.

    Raises:
        FileFormatError: If the format is not supported; the message says what the file looks like
            and what to do.
    """
    with open_file() as file:
        head = file.read(HEAD)
    if head.startswith(PARQUET_MAGIC):
        return "parquet"
    first = head.decode(errors="replace").lstrip().partition("\n")[0]
    if _JSON_START.match(first):
        return _detect_json(open_file, head, column)
    lines = _sample(head)
    if not lines:
        return "text"
    header = _header_or_none(open_file, column)
    if header is not None and column in header.columns and _is_table(lines, header):
        return "table"
    if all(isinstance(_json_or_none(line), str | list) for line in lines):
        return "jsonl"
    if _share(lines, TOKEN_LINE.fullmatch) >= 0.5:
        return "flickr"
    if header is not None:
        _refuse_unnamed_column(header, column, name)
    _refuse_fields(lines)
    _refuse_structure(lines, name)
    return "text"


def _sample(head: bytes) -> list[str]:
    """Return the first lines that are not blank, without a last one that may be cut off.

    Raises:
        FileFormatError: If they are not UTF-8, or the first one is too long.
    """
    complete = head if len(head) < HEAD else head[: head.rfind(b"\n") + 1]
    if not complete and head:
        raise FileFormatError(f"a line of more than {HEAD:,} bytes, which is not JSON")
    lines, wrong = [], []
    position = valid = 0
    for number, line in enumerate(complete.split(b"\n"), start=1):
        try:
            text = line.decode()
            valid += not line.isascii()
        except UnicodeDecodeError as error:
            text = line.decode(errors="replace")
            wrong.append((number, position + error.start, line, error.start))
        if text.strip():
            lines.append(text)
        position += len(line) + 1
    # A few such lines are damaged; many, where few are valid, have another encoding.
    if len(wrong) > max(valid, len(lines) // 10):
        number, position, _, start = wrong[0]
        data = b"\n".join(line for _, _, line, _ in wrong)
        raise not_utf8(data, start, position, number)
    return lines[:_MAX_LINES]


def _detect_json(open_file: Callable[[], BinaryIO], head: bytes, column: str) -> str:
    first, _, rest = head.lstrip().partition(b"\n")
    value = _json_or_none(first.decode(errors="replace"))
    if value is not None and rest.strip():
        return "jsonl"
    if isinstance(value, dict) and isinstance(value.get(column), str | list):
        return "jsonl"
    keys: list[str] = []
    for prefix, event, value_read in read_events(open_file):
        if (prefix, event) == ("", "start_array"):
            return "json"
        if (prefix, event) == ("", "map_key"):
            keys.append(value_read)
        if (prefix, event) == ("", "end_map"):
            break
        format = _recognize_member(keys[-1] if keys else "", prefix, event, value_read)
        if format is not None:
            return format
    else:
        raise FileFormatError("neither JSON nor JSONL: it ends before its first object does")
    if column in keys and not rest:
        return "jsonl"  # an object of one very long line
    if column in keys:
        raise FileFormatError(
            "JSON objects that are not one per line: write JSONL, one object per line without a "
            "comma after it, or a JSON list of the objects"
        )
    fields = value if isinstance(value, dict) else {}
    likely = likely_column([key for key in fields if isinstance(fields[key], str)])
    raise FileFormatError(
        f"a JSON object with {keys[:10]}: neither COCO's (with annotations), Karpathy's (images "
        "with sentences), NWPU-Captions' (classes with raw) nor TextCaps' (data with "
        f"caption_str), nor captions by image, nor a line of JSONL with {column!r}",
        *([] if likely is None else [("column", likely)]),
    )


def _recognize_member(member: str, prefix: str, event: str, value: Any) -> str | None:
    """Return the format of a JSON object with this event, or None if the event does not decide."""
    if (prefix, event) == ("annotations", "start_array"):
        return "coco"
    if (prefix, event, value) == ("images.item", "map_key", "sentences"):
        return "karpathy"
    if prefix == "data.item" and event == "map_key" and value in ("caption_str", "reference_strs"):
        return "textcaps"
    if (prefix, event, value) == (f"{member}.item", "map_key", "raw"):
        return "nwpu"
    captions = event == "string" and member and prefix in (member, f"{member}.item")
    return "mapping" if captions and names_image(member) else None


def _header_or_none(open_file: Callable[[], BinaryIO], column: str) -> Header | None:
    try:
        with open_file() as file:
            return read_header(file, column)
    except FileFormatError:  # its first line cannot be read
        return None


def _json_or_none(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _share(lines: list[str], wanted: Callable[[str], Any]) -> float:
    return sum(bool(wanted(line.strip())) for line in lines) / len(lines)


def _is_table(lines: list[str], header: Header) -> bool:
    """Return whether the lines after a header seem to have its columns, without parsing them."""
    rest = lines[1:]
    if not rest or any('"' in line for line in rest):
        return True
    columns = len(header.columns)
    return _share(rest, lambda line: line.count(header.delimiter) + 1 == columns) >= 0.5 or any(
        _FIELD_NAME.fullmatch(name) for name in header.columns
    )


def _refuse_unnamed_column(header: Header, column: str, name: str) -> None:
    names = [bool(_FIELD_NAME.fullmatch(column)) for column in header.columns]
    suffixed = name.lower().removesuffix(".gz").endswith((".csv", ".tsv", ".psv"))
    if suffixed and not any(names):
        raise FileFormatError(
            f"no column {column!r} in the first line, which has {header.columns}: a table needs a "
            "first line that names its columns; if it is plain text",
            ("format", "text"),
        )
    if suffixed or (any(names) and 2 * sum(names) >= len(names)):
        check_columns(header, column)


def _refuse_fields(lines: list[str]) -> None:
    """Refuse a table without a header.

    Raises:
        FileFormatError: If nearly all lines have the same number of fields.
    """
    for delimiter in DELIMITERS:
        counts = [line.count(delimiter) for line in lines]
        usual = max(set(counts), key=counts.count)
        constant = usual > 0 and counts.count(usual) >= 0.9 * len(lines)
        # Sentences have commas too, but not the same number of them each.
        if constant and (delimiter in "\t|" or (len(lines) > 9 and usual > 1)):
            raise FileFormatError(
                f"each line has {usual + 1} fields, but the first does not name them: add such a "
                f"line, with {'caption'!r} for the captions; if it is plain text",
                ("format", "text"),
            )


def _refuse_structure(lines: list[str], name: str) -> None:
    """Refuse lines that are not only sentences.

    Raises:
        FileFormatError: If so; the message says what the lines look like.
    """
    for kind, pattern, least in _STRUCTURES:
        if _share(lines, pattern.match) >= least:
            raise FileFormatError(
                f"not plain text: its lines {kind}, such as {lines[0].strip()[:60]!r}. A table "
                "needs a first line that names its columns, such as 'image,caption'; if it is "
                "plain text",
                ("format", "text"),
            )
    suffix = name.lower().removesuffix(".gz").rpartition(".")[2]
    if suffix in ("json", "jsonl", "ndjson"):
        raise FileFormatError("neither JSON nor JSONL; if it is plain text", ("format", "text"))
    if len(lines) == 1 and suffix != "txt":
        raise FileFormatError(
            "one line without a supported format; if it is plain text", ("format", "text")
        )
