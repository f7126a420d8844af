"""Binary files that check or transform the content of another file piece by piece."""

import codecs
import gzip
import io
import zlib
from abc import abstractmethod
from pathlib import Path
from typing import Any, BinaryIO

from pcm_plugin.formats.text.errors import FileFormatError, not_utf8

_PIECE = 1 << 16


class CheckedUtf8(io.RawIOBase):
    """A binary file that raises where it is not valid UTF-8.

    Args:
        file: Return value of :func:`.open_text`.

    Raises:
        FileFormatError: While reading; names line, byte and the probable encoding.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._offset, self._line = 0, 1

    def readable(self) -> bool:
        """Return True."""
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


class GzipContent(io.RawIOBase):
    """The content of a gzip file, with errors that say what is wrong."""

    def __init__(self, path: Path) -> None:
        self._file = gzip.open(path)  # noqa: SIM115

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read up to the length of the buffer."""
        try:
            return self._file.readinto(buffer)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise FileFormatError(
                f"its gzip data are damaged or cut off ({error}): copy or download it again"
            ) from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


class _Filter(io.RawIOBase):
    """Bytes of another file, changed piece by piece."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._ready = file, b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._file.read(_PIECE)
            self._ready = self._change(data)
            if not data and not self._ready:
                return 0
        part, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._file.close()
        super().close()

    @abstractmethod
    def _change(self, data: bytes) -> bytes:
        """Transform the next piece; an empty one marks the end of the file."""


class ReturnsAsLineFeeds(_Filter):
    """Text whose lines end in line feeds, of text with carriage returns."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._held = b""

    def _change(self, data: bytes) -> bytes:
        # A return at the end of a piece may belong to a line feed in the next one.
        data, self._held = self._held + data, b""
        if data.endswith(b"\r") and data != b"\r":
            data, self._held = data[:-1], b"\r"
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


class Transcoded(_Filter):
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
