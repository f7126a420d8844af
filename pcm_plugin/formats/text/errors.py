"""Errors of files with unexpected content, with advice."""

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from pcm_plugin.errors import UserError
from pcm_plugin.formats.text.encodings import guess_encoding


class FileFormatError(UserError):
    """A file is not what its reader expects.

    Args:
        problem: Description of the problem.
        fixes: Arguments and values, such as ``('encoding', 'cp1252')``, of which one helps.
        line: Number of the line. Defaults to None.
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
