r"""Tables with a header line: CSV, TSV, and others, in the quoting that the file uses.

Fields may be quoted (``"a ""good"" dog, big"``, also over several lines), quoted with backslash
escapes (``"a \"good\" dog"``), or quotation marks may be ordinary characters, as in most TSV files.
All rows of the file decide which, see :func:`find_quoting`, so a stray mark never merges rows.
"""

import csv
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from pcm_plugin.formats.captions.lines import invalid_line, read_lines
from pcm_plugin.formats.captions.record import Record, is_missing, likely_column
from pcm_plugin.formats.captions.table_rows import Header, read_rows
from pcm_plugin.formats.captions.values import of_image
from pcm_plugin.formats.cleaning import clean_text
from pcm_plugin.formats.text.errors import FileFormatError

DELIMITERS = "\t,;|"

_RULE = re.compile(r"\s*:?-*:?\s*")
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)


def parse_header(line: str, column: str | None = None, delimiter: str | None = None) -> Header:
    """Split a header line.

    Args:
        line: The line.
        column: Column that it should have, which decides between delimiters. Defaults to None.
        delimiter: The delimiter. Defaults to None: the one that gives most columns.
    """
    candidates = []
    for mark in (delimiter,) if delimiter else DELIMITERS:
        fields = next(csv.reader([line], delimiter=mark, skipinitialspace=True), [])
        names = [clean_text(field) for field in fields]
        candidates.append((column in names, len(names), -DELIMITERS.find(mark), mark, names))
    _, _, _, mark, names = max(candidates)
    spaced = len(names) > 1 and line.count(mark) == line.count(f"{mark} ")
    return Header(mark, names, '"' in line, spaced)


def read_header(file: BinaryIO, column: str | None = None) -> Header:
    """Read up to the header line of a table.

    Args:
        file: The table, at its start.
        column: See :func:`parse_header`.

    Raises:
        FileFormatError: If the line cannot be read.
    """
    delimiter = None
    for number, line in read_lines(file):
        if isinstance(line, FileFormatError):
            raise line
        separator = _SEPARATOR_LINE.fullmatch(line.strip()) if number == 1 else None
        if separator:  # Excel's
            delimiter = separator[1]
        elif line.strip():
            return parse_header(line, column, delimiter)._replace(lines=number)
    return Header(",", [])


def read_table(open_file: Callable[[], BinaryIO], column: str) -> Iterator[Record]:
    """Read a table whose first line names the columns.

    Besides ``column``, which may hold lists of captions, it may have the columns of
    :func:`~pcm_plugin.formats.captions.record.from_fields`.

    Args:
        open_file: Opens the file; called several times.
        column: The column that holds the captions.
    """
    with open_file() as file:
        header = read_header(file, column)
    check_columns(header, column)
    where = header.columns.index(column)
    quoting = find_quoting(open_file, header)
    for row in read_rows(open_file, header, quoting):
        location = str(row.first)
        if isinstance(row.problem, FileFormatError):
            yield invalid_line(row.first, row.problem)
        elif row.fields is None:
            yield Record(location, row.first, problem=row.problem)
        else:
            fields = dict(zip(header.columns, row.fields, strict=True))
            text = row.fields[where]
            if text.startswith(("-", ":-")) and all(map(_RULE.fullmatch, row.fields)):
                continue  # between the header and the rows of a Markdown table
            text = "" if is_missing(text) else text
            yield from of_image(location, row.first, text, fields, f"under {column!r}")


def check_columns(header: Header, column: str) -> None:
    """Check that a table has the column and that column names are unique.

    Raises:
        FileFormatError: If not; the message names the columns and the one that is probably meant.
    """
    if column not in header.columns:
        problem = f"no column {column!r} in the first line, which has {header.columns}"
        likely = likely_column(header.columns)
        fixes = [] if likely is None else [("column", likely)]
        # A line of one word may be a caption.
        fixes += [("format", "text")] if len(header.columns) == 1 else []
        raise FileFormatError(problem, *fixes)
    twice = [name for name in header.columns if name and header.columns.count(name) > 1]
    if twice:
        raise FileFormatError(f"two columns are named {twice[0]!r}: rename one")


def find_quoting(open_file: Callable[[], BinaryIO], header: Header) -> str:
    """Decide what quotation marks mean in a table, from all of its rows.

    Fields are quoted if the whole table can be read this way, or if some row has a delimiter or a
    line end within a quoted field. Otherwise the marks are part of the text, provided that the
    table can be read line by line and, with commas, semicolons or bars as delimiter, no quoted
    field continues on another line.

    Args:
        open_file: Opens the table.
        header: Its header.

    Returns:
        See :func:`~pcm_plugin.formats.captions.table_rows.read_rows`.
    """
    with open_file() as file:
        escaped = quoted = False
        for line in file:
            quoted = quoted or b'"' in line
            escaped = escaped or b'\\"' in line
    if not quoted:
        return "none"
    counts = _count(open_file, header, "double")
    if not counts.faults:
        return "double"
    if escaped and not _count(open_file, header, "backslash").faults:
        return "backslash"
    if header.quoted or counts.needed > (0 if header.has_prose_delimiter else counts.faults):
        return "double"
    prose = header.has_prose_delimiter or len(header.columns) == 1
    return "double" if prose and counts.several_lines else "none"


class _Counts(NamedTuple):
    """Rows with quotation marks: faulty, faulty and of several lines, not readable without."""

    faults: int
    several_lines: int
    needed: int


def _count(open_file: Callable[[], BinaryIO], header: Header, quoting: str) -> _Counts:
    faults = several_lines = needed = 0
    for row in read_rows(open_file, header, quoting):
        faults += bool(row.fault)
        several_lines += row.fault in ("open", "joined")
        needed += row.needs_quotes
    return _Counts(faults, several_lines, needed)
