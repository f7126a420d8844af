"""Rows of a table with fields that may be quoted."""

import csv
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from pcm_plugin.formats.captions.lines import read_lines
from pcm_plugin.formats.text.errors import FileFormatError

_ESCAPED = re.compile(r'\\(["\\])')
_MAX_LINES = 100
"""Lines of one row; a quoted field that is longer was never closed."""


class Header(NamedTuple):
    """The first line of a table.

    Attributes:
        delimiter: Delimiter of the columns.
        columns: Names of the columns.
        quoted: Whether a name is quoted. Defaults to False.
        spaced: Whether a space follows each delimiter and is part of it. Defaults to False.
        lines: Number of lines up to the header. Defaults to 0.
    """

    delimiter: str
    columns: list[str]
    quoted: bool = False
    spaced: bool = False
    lines: int = 0

    @property
    def has_prose_delimiter(self) -> bool:
        """Whether the delimiter also occurs in sentences, so that writers quote fields."""
        return self.delimiter in ",;" or (self.delimiter == "|" and not self.spaced)


class Row(NamedTuple):
    """A row of a table, or what is wrong with it.

    Attributes:
        first: Number of its first line.
        last: Number of its last line.
        fields: Its fields; None if they cannot be read.
        problem: Why not.
        fault: What is wrong with its quotation marks: ``'error'``, ``'open'`` (one is not closed)
            or ``'joined'`` (they join rows); empty if nothing is.
        needs_quotes: Whether it can only be read with quoted fields.
    """

    first: int
    last: int
    fields: list[str] | None
    problem: str | FileFormatError = ""
    fault: str = ""
    needs_quotes: bool = False


def read_rows(open_file: Callable[[], BinaryIO], header: Header, quoting: str) -> Iterator[Row]:
    """Read the rows of a table.

    Args:
        open_file: Opens the table.
        header: Its header.
        quoting: What quotation marks mean: ``'double'`` if fields may be quoted and marks within
            them are doubled, ``'backslash'`` if they are escaped, ``'none'`` if the marks belong
            to the text.
    """
    with open_file() as file:
        lines = _Lines(line for line in read_lines(file) if line[0] > header.lines)
        for number, line in lines:
            if isinstance(line, FileFormatError):
                yield Row(number, number, None, line)
            elif '"' in line and quoting != "none":
                yield _read_quoted(number, line, lines, header, quoting)
            elif line.strip():
                yield _check(number, number, line.split(header.delimiter), header)


class _Lines:
    """Numbered lines, to which some can be put back."""

    def __init__(self, lines: Iterator[tuple[int, str | FileFormatError]]) -> None:
        self._lines = lines
        self._held: list[tuple[int, str | FileFormatError]] = []

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> tuple[int, str | FileFormatError]:
        return self._held.pop(0) if self._held else next(self._lines)

    def put_back(self, lines: list[tuple[int, str | FileFormatError]]) -> None:
        self._held[:0] = lines


def _read_quoted(number: int, line: str, lines: _Lines, header: Header, quoting: str) -> Row:
    """Read a row that begins in a line with quotation marks, and goes on as far as they say."""
    parts, following = [line], []
    fields = _split(line, header, quoting)
    while fields is None and len(parts) < _MAX_LINES:
        after = next(lines, None)
        following += [] if after is None else [after]
        if after is None or isinstance(after[1], FileFormatError):
            break
        parts.append(after[1])
        if '"' in after[1]:
            fields = _split("\n".join(parts), header, quoting)
    last = number + len(parts) - 1
    if isinstance(fields, list) and _joins_rows(parts, header):
        problem = (
            f"a quotation mark opens a field that one in line {last} closes, but lines from here "
            "to there look like rows"
        )
        return Row(number, last, None, problem, "joined")
    if isinstance(fields, list):
        row = _check(number, last, fields, header)
        alone = len(parts) == 1 and line.count(header.delimiter) + 1 == len(header.columns)
        good = row.fields is not None
        return row._replace(fault="" if good else "error", needs_quotes=good and not alone)
    # What follows a row that cannot be read is read on its own.
    lines.put_back(following)
    if isinstance(fields, str):
        return Row(number, number, None, fields, "error")
    problem = "a quotation mark opens a field that no other one closes"
    return Row(number, number, None, problem, "open")


def _joins_rows(parts: list[str], header: Header) -> bool:
    """Return whether a field of several lines joins rows, judged by their number of fields."""
    first, *others = (part.count(header.delimiter) + 1 == len(header.columns) for part in parts)
    if header.quoted:
        others = [row and part.startswith('"') for row, part in zip(others, parts[1:], strict=True)]
    if header.has_prose_delimiter:
        return first and 2 * sum(others) > len(others)
    return any(others)


def _check(first: int, last: int, fields: list[str], header: Header) -> Row:
    if len(fields) != len(header.columns):
        problem = f"{len(fields)} fields, the first line has {len(header.columns)}"
        return Row(first, last, None, problem)
    return Row(first, last, fields)


def _split(text: str, header: Header, quoting: str) -> list[str] | str | None:
    """Return the fields of a row, an error message, or None if the row continues."""
    if quoting == "backslash":
        text = _ESCAPED.sub(lambda escaped: '""' if escaped[1] == '"' else "\\", text)
    reader = csv.reader(
        [text], delimiter=header.delimiter, strict=True, skipinitialspace=header.spaced
    )
    try:
        return next(reader)
    except csv.Error as error:
        return None if "unexpected end of data" in str(error) else str(error)
