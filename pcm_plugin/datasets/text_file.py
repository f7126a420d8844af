"""Text files as UTF-8, whatever their encoding and line ends, compressed with gzip or not."""

import codecs
import gzip
import io
import json
import os
import shlex
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pcm_plugin.datasets.encodings import (
    BYTE_ORDER_MARKS,
    guess_encoding,
    guess_wide_encoding,
)
from pcm_plugin.datasets.file_kinds import describe_binary

HEAD = 1 << 16
"""Number of bytes that decide on encoding, line ends and format."""

_UTF8 = ("utf-8", "utf-8-sig", "ascii")
# So many characters cannot be valid UTF-8 by accident.
_CLEARLY_UTF8 = 4


class FileFormatError(ValueError):
    """A file is not what its reader expects.

    Args:
        problem: What is wrong.
        fixes: Arguments and values, such as ``('encoding', 'cp1252')``, of which one helps.
        line: Number of the line, if it is known.
    """

    def __init__(self, problem: str, *fixes: tuple[str, Any], line: int | None = None) -> None:
        self.problem, self.fixes, self.line = problem, fixes, line
        super().__init__(self.describe())

    def describe(
        self, path: str | os.PathLike = "", options: Mapping[str, str] | None = None
    ) -> str:
        """Return a message that starts with path and line and ends with the fixes."""
        place = f"{path}:" if path else ""
        place += f"{self.line}:" if self.line is not None else ""
        advice = describe_fixes(self.fixes, options)
        return f"{place}{' ' if place else ''}{self.problem}{advice}"


def describe_fixes(
    fixes: Sequence[tuple[str, Any]], options: Mapping[str, str] | None = None
) -> str:
    """Return the end of an error message: which argument to pass.

    Args:
        fixes: Arguments and values, of which one helps.
        options: Options of a command to name instead, by argument. Defaults to None.
    """
    if not fixes:
        return ""
    words = []
    for name, value in fixes:
        if options is None:
            words.append(f"{name}={value!r}")
        else:
            words.append(
                options[name] if value is True else f"{options[name]} {shlex.quote(value)}"
            )
    return ": pass " + " or ".join(words)


def open_text(path: str | os.PathLike, encoding: str | None = None) -> BinaryIO:
    """Open a text file for reading as UTF-8.

    Files that are compressed with gzip are unpacked; byte-order marks are dropped; UTF-16 and
    UTF-32 with such a mark are decoded; carriage returns that end lines become line feeds, except
    before a line feed. Memory does not grow with the file.

    Args:
        path: The file.
        encoding: Its encoding, by Python's name of it. Defaults to None: that of its byte-order
            mark, or UTF-8, of which nothing is checked here beyond the first :data:`HEAD` bytes.

    Returns:
        A buffered binary file, at its start.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the encoding is unknown or obviously another, or the file is not text; says
            what it is and what to do.
        FileFormatError: While reading, if data are damaged or not of ``encoding``.
    """
    path = Path(path)
    with _unpack(path) as file:
        head = file.read(HEAD)
    codec = _find_codec(head, path, encoding)
    text: io.RawIOBase | BinaryIO = _unpack(path)
    mark = next((mark for mark in BYTE_ORDER_MARKS if head.startswith(mark)), b"")
    text.read(len(mark))
    if codec not in _UTF8:
        text = io.BufferedReader(_Transcoded(text, codec))  # type: ignore[arg-type]
        with _unpack(path) as file:
            file.read(len(mark))
            head = io.BufferedReader(_Transcoded(file, codec)).read(HEAD)
    if _ends_lines_with_returns(head):
        text = io.BufferedReader(_ReturnsAsLineFeeds(text))  # type: ignore[arg-type]
    return text  # type: ignore[return-value]


def is_clearly_utf8(path: str | os.PathLike) -> bool:
    """Whether a file has a byte-order mark, or begins with valid UTF-8 that is not only ASCII."""
    with _unpack(Path(path)) as file:
        head = file.read(HEAD)
    return head.startswith(tuple(BYTE_ORDER_MARKS)) or _count_utf8(head) > 0


def read_json(path: str | os.PathLike, encoding: str | None = None) -> Any:
    """Read a JSON document at once, from a file that :func:`open_text` reads.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not text of that encoding, or not JSON; starts with the path.
    """
    try:
        with open_text(path, encoding) as file:
            return json.loads(CheckedUtf8(file).read())
    except (json.JSONDecodeError, FileFormatError) as error:
        if isinstance(error, FileFormatError):
            raise ValueError(error.describe(path)) from None
        raise ValueError(f"{path} is not a JSON file: {error}") from None


class CheckedUtf8(io.RawIOBase):
    """A binary file that raises where it is not valid UTF-8.

    Args:
        file: What :func:`open_text` returned.

    Raises:
        FileFormatError: While reading; names line, byte and the probable encoding.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._offset, self._line = 0, 1

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read up to the length of the buffer."""
        data = self._file.read(len(buffer))
        before = self._decoder.getstate()[0]
        try:
            self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            context = before + data
            line = self._line + context[: error.start].count(b"\n")
            position = self._offset - len(before) + error.start
            raise not_utf8(context, error.start, position, line) from None
        self._offset += len(data)
        self._line += data.count(b"\n")
        buffer[: len(data)] = data
        return len(data)


def not_utf8(data: bytes, start: int, position: int, line: int | None = None) -> FileFormatError:
    """Return the error for text that is not UTF-8, with the encoding it probably has.

    Args:
        data: Some of it, with the first invalid byte.
        start: Where this byte is in ``data``.
        position: Where it is in the file.
        line: Number of its line.
    """
    problem = f"not UTF-8 (0x{data[start]:02X} at byte {position:,})"
    guess = guess_encoding(data)
    name, codec = ("another encoding", "NAME") if guess is None else guess
    return FileFormatError(f"{problem}, probably {name}", ("encoding", codec), line=line)


def _unpack(path: Path) -> BinaryIO:
    file = open(path, "rb")  # noqa: SIM115
    if file.read(3) == b"\x1f\x8b\x08":
        file.close()
        return io.BufferedReader(_Gzip(path))
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
            f"not {encoding}: its byte-order mark says {marked}, as which it is read if no "
            "encoding is given"
        )
    if not info.name.startswith(("utf-16", "utf-32", "iso2022")):
        _refuse_unmarked(head)
    if info.name not in _UTF8 and _count_utf8(head) >= _CLEARLY_UTF8:
        raise FileFormatError(
            f"not {encoding} but valid UTF-8 with other characters than ASCII, as which it is "
            "read if no encoding is given"
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


class _Gzip(io.RawIOBase):
    """The content of a gzip file, with errors that say what is wrong."""

    def __init__(self, path: Path) -> None:
        self._file = gzip.open(path)  # noqa: SIM115

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return self._file.readinto(buffer)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise FileFormatError(
                f"its gzip data are damaged or cut off ({error}): copy or download it again"
            ) from None

    def close(self) -> None:
        self._file.close()
        super().close()


class _Filter(io.RawIOBase):
    """Bytes of another file, changed piece by piece."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._ready = file, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._file.read(HEAD)
            self._ready = self._change(data)
            if not data and not self._ready:
                return 0
        part, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _change(self, data: bytes) -> bytes:
        raise NotImplementedError


class _ReturnsAsLineFeeds(_Filter):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._held = b""

    def _change(self, data: bytes) -> bytes:
        # A return at the end of a piece may belong to a line feed in the next one.
        data, self._held = self._held + data, b""
        if data.endswith(b"\r") and data != b"\r":
            data, self._held = data[:-1], b"\r"
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


class _Transcoded(_Filter):
    """Text of any encoding as UTF-8."""

    def __init__(self, file: BinaryIO, codec: str) -> None:
        super().__init__(file)
        self._codec, self._offset, self._line = codec, 0, 1
        self._decoder = codecs.getincrementaldecoder(codec)()

    def _change(self, data: bytes) -> bytes:
        held = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            position = self._offset - held + error.start
            before = error.object[: error.start].decode(self._codec, "replace")
            line = self._line + before.count("\n")
            raise FileFormatError(
                f"not {self._codec} (line {line}, byte {position:,}: {error.reason}): it is "
                "damaged or has another encoding"
            ) from None
        self._offset += len(data)
        self._line += text.count("\n")
        return text.encode("utf-8", "surrogatepass")
