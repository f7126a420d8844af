"""The ``KEY=VALUE`` pairs of command-line options such as ``--cfg-options`` and ``--set``."""

import argparse
import ast
import re
from typing import Any

from pcm_plugin.errors import UserError

_CLOSING = {"(": ")", "[": "]", "{": "}"}
_SYNTAX = "KEY=VALUE, quoted for the shell if it contains spaces: 'KEY=my folder/file.json'"


class CfgOptions(argparse.Action):
    """Parse ``KEY=VALUE`` pairs with :func:`parse_value`; the option may be repeated.

    It replaces MMEngine's ``DictAction``, which removes all spaces from values.
    """

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        """Parse the pairs of one occurrence of the option."""
        settings: dict[str, Any] = dict(getattr(namespace, self.dest) or {})
        for pair in values:
            key, equals, text = pair.partition("=")
            if not equals or not all(key.split(".")):
                parser.error(f"{option_string} must be {_SYNTAX}; got {pair!r}")
            try:
                settings[key.strip()] = parse_value(text)
            except UserError as error:
                parser.error(f"{option_string} {key}: {error}")
        setattr(namespace, self.dest, settings)


def parse_value(text: str) -> Any:
    """Parse the value of an option.

    - Numbers, ``True``, ``False`` (in any case) and ``None`` are parsed as in Python.
    - ``[...]``, ``(...)`` and ``{...: ...}`` are lists, tuples and dictionaries. Their elements
      follow the same rules, so words need no quotes: ``[BLEU, CIDEr]``.
    - Text in quotes is a Python string: ``"1"``, ``['a, b', c]``.
    - Text with commas but without spaces, slashes or brackets is a list, ``BLEU,CIDEr``. So are
      numbers separated by commas.
    - Everything else is a string and is not changed; spaces are kept.

    Args:
        text: Text after the first ``=``.

    Raises:
        UserError: If a bracket is not closed, or an entry of ``{...}`` is not a pair.
    """
    inner = text.strip()
    if inner[:1] in ("'", '"'):
        try:
            value = ast.literal_eval(inner)
        except (ValueError, SyntaxError):
            return text
        return list(value) if isinstance(value, tuple) else value
    if inner[:1] in _CLOSING:
        value, end = _read_group(inner, 0)
        if end == len(inner):
            return value
        return text  # such as a path that begins with brackets: (copy) out/captions.json
    if "," in inner:
        values = [_parse_scalar(part) for part in inner.removesuffix(",").split(",")]
        is_numeric = not any(isinstance(value, str) for value in values)
        if is_numeric or not any(c in "()[]{}'\"/" or c.isspace() for c in inner):
            return values
    value = _parse_scalar(inner)
    return text if isinstance(value, str) else value


def format_option(key: str, value: Any) -> str:
    """Return ``KEY=VALUE`` so that :func:`parse_value` parses it as ``value``.

    Args:
        key: Name of the setting.
        value: Strings, numbers, None, or lists, tuples and dictionaries of these.
    """
    plain = str(value)
    if isinstance(value, str) and _is_unchanged(plain):
        return f"{key}={plain}"
    return f"{key}={value!r}"


def _is_unchanged(text: str) -> bool:
    try:
        return parse_value(text) == text
    except UserError:
        return False


def _read_group(text: str, start: int) -> tuple[Any, int]:
    """Read the list, tuple or dictionary at ``start``; also return its end."""
    closing = _CLOSING[text[start]]
    values: list[Any] = []
    keys: list[Any] = []
    position = start + 1
    while True:
        position = _skip_spaces(text, position)
        if text[position : position + 1] == closing:
            break
        if closing == "}":
            key, position = _read_element(text, position, ":}")
            if text[position : position + 1] != ":":
                raise UserError(f"each entry of {text!r} must be a pair 'key: value'")
            keys.append(key)
            position = _skip_spaces(text, position + 1)
        value, position = _read_element(text, position, "," + closing)
        values.append(value)
        if text[position : position + 1] == ",":
            position += 1
        elif text[position : position + 1] != closing:
            raise _unclosed(text)
    if closing == "}":
        return dict(zip(keys, values, strict=True)), position + 1
    return (tuple(values) if closing == ")" else values), position + 1


def _read_element(text: str, start: int, ends: str) -> tuple[Any, int]:
    """Read an element up to one of the characters ``ends``; also return its end."""
    if text[start : start + 1] in _CLOSING:
        value, position = _read_group(text, start)
        position = _skip_spaces(text, position)
        if text[position : position + 1] in ends:
            return value, position
    if quoted := re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"").match(text, start):
        position = _skip_spaces(text, quoted.end())
        if text[position : position + 1] in ends:
            return ast.literal_eval(quoted[0]), position
    position, depth = start, 0
    while position < len(text) and (depth or text[position] not in ends):
        depth += (text[position] in _CLOSING) - (text[position] in _CLOSING.values())
        position += 1
    return _parse_scalar(text[start:position].strip()), position


def _skip_spaces(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _unclosed(text: str) -> UserError:
    return UserError(
        f"brackets must be closed, got {text!r}; close them, or put the value in quotes if it is "
        "text: 'KEY=\"...\"'"
    )


def _parse_scalar(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    words = {"true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    return None if text == "None" else text
