"""Source text of the training configs of a data set."""

import keyword
import os
from pathlib import Path
from typing import Any

from pcm_plugin.packaged_files import PACKAGE

_LOCAL = "local-dir:"


class Expression(str):
    """Python source that is written as it is, instead of as a string."""


def config_source(title: str, base: str, settings: dict[str, Any]) -> bytes:
    """Return the source of a config that inherits one of this package.

    Args:
        title: What the config trains, such as ``'PCM-Net on the data in this folder'``.
        base: Config that it inherits, below ``configs``.
        settings: Settings that differ. Paths are those of :func:`data_path`.
    """
    text = f"""\
# {title}. Written by `pcm make-dataset`; pass it to `pcm train`.
_base_ = __import__("pcm_plugin").config_file("{base}")

import os

# Paths are relative to this file, so the folder can be moved.
root = os.path.relpath("{{{{ fileDirname }}}}")
{format_settings(settings)}"""
    return text.encode()


def data_path(inside: str) -> Expression:
    """Return the source of a path in the folder of the data set, whose config defines ``root``."""
    return Expression(f'f"{{root}}/{inside}"')


def clip_model_name(name: str, out: Path) -> str:
    """Return the name of a CLIP for the config of a data set in the folder ``out``.

    The config looks up a folder of this package when it is read. The path of a folder below the
    current one is relative to the config.
    """
    if not name.startswith(_LOCAL):
        return name
    folder = Path(os.path.normpath(name.removeprefix(_LOCAL)))
    if folder.resolve().is_relative_to(PACKAGE.resolve()):
        inside = folder.resolve().relative_to(PACKAGE.resolve()).as_posix()
        return Expression(f'"{_LOCAL}" + __import__("pcm_plugin").packaged_file("{inside}")')
    return path_from_config(folder, out, _LOCAL)


def path_from_config(folder: str | os.PathLike, out: Path, prefix: str = "") -> str:
    """Return a folder for the config of a data set in the folder ``out``.

    The path of a folder below the current one is relative to the config.

    Args:
        folder: The folder.
        out: Folder of the data set.
        prefix: Text in front of the path. Defaults to none.
    """
    path = Path(folder)
    if not path.resolve().is_relative_to(Path.cwd()):
        return f"{prefix}{path}"
    inside = Path(os.path.relpath(path.resolve(), out.resolve())).as_posix()
    return Expression(f'f"{prefix}{{root}}/" + {inside!r}')


def format_settings(settings: dict[str, Any]) -> str:
    """Return settings as Python source, each at the top level of a config."""
    return "".join(f"{name} = {_format(value)}\n" for name, value in settings.items())


def _format(value: Any, indent: str = "") -> str:
    """Return a value as Python source, one setting per line."""
    if isinstance(value, Expression):
        return str(value)
    if not isinstance(value, (dict, list)) or not value:
        return repr(value)
    inner = f"{indent}    "
    if isinstance(value, list):
        return "[\n" + "".join(f"{inner}{_format(x, inner)},\n" for x in value) + f"{indent}]"
    if all(_is_argument_name(key) for key in value):
        lines = [f"{inner}{key}={_format(part, inner)},\n" for key, part in value.items()]
        return f"dict(\n{''.join(lines)}{indent})"
    lines = [f"{inner}{key!r}: {_format(part, inner)},\n" for key, part in value.items()]
    return f"{{\n{''.join(lines)}{indent}}}"


def _is_argument_name(key: Any) -> bool:
    return isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key)
