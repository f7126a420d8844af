"""Read text files of any encoding and line ends, optionally compressed with gzip, as UTF-8."""

import codecs
import io
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from pcm_plugin.errors import UserError
from pcm_plugin.formats.text.binary_kinds import describe_binary
from pcm_plugin.formats.text.byte_streams import (
    CheckedUtf8,
    GzipContent,
    ReturnsAsLineFeeds,
    Transcoded,
)
from pcm_plugin.formats.text.encodings import BYTE_ORDER_MARKS, guess_encoding, guess_wide_encoding
from pcm_plugin.formats.text.errors import FileFormatError

HEAD = 1 << 16
"""Number of bytes that decide on encoding, line ends and format."""

_UTF8 = ("utf-8", "utf-8-sig", "ascii")
# So many characters cannot be valid UTF-8 by accident.
_CLEARLY_UTF8 = 4


def open_text(path: str | os.PathLike, encoding: str | None = None) -> BinaryIO:
    """Open a text file for reading as UTF-8.

    Files that are compressed with gzip are unpacked; byte-order marks are dropped; UTF-16 and
    UTF-32 with such a mark are decoded; carriage returns that end lines become line feeds, except
    before a line feed. Memory does not grow with the file.

    Args:
        path: The file.
        encoding: Name of the encoding in Python. Defaults to None: that of the byte-order mark, or
            UTF-8, which is only checked in the first :data:`HEAD` bytes here.

    Returns:
        A buffered binary file, at its start.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If the encoding is unknown or obviously wrong, or the file is not text; the
            message says what it is and what to do.
        FileFormatError: While reading, if data are damaged or not of ``encoding``.
    """
    path = Path(path)
    with _unpack(path) as file:
        head = file.read(HEAD)
    codec = _find_codec(head, path, encoding)
    text: io.RawIOBase | BinaryIO = _unpack(path)
    mark = next((mark for mark in BYTE_ORDER_MARKS if head.startswith(mark)), b"")
    while mark and head.startswith(mark * 2):  # written by two programs
        mark += mark
    text.read(len(mark))
    if codec not in _UTF8:
        text = io.BufferedReader(Transcoded(text, codec))  # type: ignore[arg-type]
        with _unpack(path) as file:
            file.read(len(mark))
            head = io.BufferedReader(Transcoded(file, codec)).read(HEAD)
    if _ends_lines_with_returns(head):
        text = io.BufferedReader(ReturnsAsLineFeeds(text))  # type: ignore[arg-type]
    return text  # type: ignore[return-value]


def is_clearly_utf8(path: str | os.PathLike) -> bool:
    """Return whether a file has a byte-order mark, or starts with UTF-8 that is not only ASCII."""
    with _unpack(Path(path)) as file:
        head = file.read(HEAD)
    return head.startswith(tuple(BYTE_ORDER_MARKS)) or _count_utf8(head) > 0


def read_json(path: str | os.PathLike, encoding: str | None = None) -> Any:
    """Read a JSON document at once, from a file that :func:`.open_text` reads.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If it is not text of that encoding, or not JSON; starts with the path.
    """
    try:
        with open_text(path, encoding) as file:
            return json.loads(CheckedUtf8(file).read())
    except (json.JSONDecodeError, FileFormatError) as error:
        if isinstance(error, FileFormatError):
            advice = ": save it as UTF-8" if error.fixes and encoding is None else ""
            raise UserError(
                FileFormatError(error.problem + advice, line=error.line).describe(path)
            ) from None
        raise UserError(f"{path} is not a JSON file: {error}") from None


def _unpack(path: Path) -> BinaryIO:
    file = open(path, "rb")  # noqa: SIM115
    if file.read(3) == b"\x1f\x8b\x08":
        file.close()
        return io.BufferedReader(GzipContent(path))
    file.seek(0)
    return file


def _find_codec(head: bytes, path: Path, encoding: str | None) -> str:
    kind = describe_binary(head, path)
    if kind is not None:
        what, advice = kind
        raise FileFormatError(f"not a text file but {what}: {advice}")
    mark = next((mark for mark in BYTE_ORDER_MARKS if head.startswith(mark)), None)
    marked = BYTE_ORDER_MARKS[mark] if mark else None
    if encoding is None:
        if marked is None:
            _refuse_unmarked(head)
        return marked or "utf-8"
    try:
        info = codecs.lookup(encoding)
        "".encode(encoding)
    except (LookupError, ValueError, TypeError):
        raise FileFormatError(
            f"unknown encoding {encoding!r}: use Python's name of one, such as gb18030, cp1252, "
            "utf-16-le, big5 or cp932"
        ) from None
    if marked is not None:
        if info.name.replace("-", "").startswith(marked[:6].replace("-", "")):
            return marked
        raise FileFormatError(
            f"not {encoding}: its byte-order mark says {marked}: pass no encoding to read it "
            "as such"
        )
    wide = info.name.startswith(("utf-16", "utf-32"))
    if not wide and not info.name.startswith("iso2022"):
        _refuse_unmarked(head)
    least = 0 if wide and 0 not in head else _CLEARLY_UTF8
    if info.name not in _UTF8 and head and _count_utf8(head) >= least:
        raise FileFormatError(
            f"not {encoding} but valid UTF-8: pass no encoding to read it as such"
        )
    # Without a mark Python takes the machine's byte order.
    return {"utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(info.name, info.name)


def _refuse_unmarked(head: bytes) -> None:
    """Refuse UTF-16 and UTF-32 without a byte-order mark, ISO-2022, and data that are not text."""
    zeros = head.count(0)
    if not zeros:
        guess = guess_encoding(head) if b"\x1b$" in head else None
        if guess is not None and guess.codec.startswith("iso2022"):
            raise FileFormatError(f"not UTF-8 but probably {guess.name}", ("encoding", guess.codec))
        return
    guess = guess_wide_encoding(head)
    if guess is not None and (zeros > 0.2 * len(head) or _count_utf8(head) < 0):
        raise FileFormatError(
            f"not UTF-8 but probably {guess.name} without a byte-order mark",
            ("encoding", guess.codec),
        )
    odd = sum(head.count(byte) for byte in range(32) if byte not in b"\t\n\v\f\r\x1b")
    if odd > 0.1 * len(head):
        raise FileFormatError("not a text file: it holds binary data")


def _count_utf8(head: bytes) -> int:
    """Count the characters beyond ASCII; -1 if it is not UTF-8."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return -1
    return sum(char > "\x7f" for char in text)


def _ends_lines_with_returns(head: bytes) -> bool:
    both = head.count(b"\r\n")
    return head.count(b"\r") - both > head.count(b"\n")
