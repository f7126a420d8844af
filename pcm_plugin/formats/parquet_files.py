"""Names of the Parquet files of one data set.

Hugging Face stores data sets as ``train-00000-of-00032.parquet``, ...
"""

import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from pcm_plugin.errors import MissingFileError, UserError

_NUMBERED = re.compile(r"(?P<stem>.+)-(?P<index>\d+)-of-(?P<count>\d+)\.parquet", re.IGNORECASE)


def find_parquet_files(paths: Sequence[str | os.PathLike], partial: bool = False) -> list[Path]:
    """List the Parquet files of one data set in the order in which their rows are numbered.

    Args:
        paths: Files, or folders with ``.parquet`` files (without their subfolders).
        partial: Whether to accept ``NAME-00000-of-00032.parquet`` without the 31 others.
            Defaults to False.

    Returns:
        The files, sorted by name; digits in names are compared as numbers.

    Raises:
        MissingFileError: If a path does not exist, or a folder has no Parquet files.
        UserError: If two files have the same name, the files belong to several sets, or files of
            the set are missing.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            files += _list_folder(path)
        elif path.is_file():
            files.append(path)
        else:
            raise MissingFileError(f"no file or folder at {path}")
    files.sort(key=lambda file: (_natural(file.name), file.name))
    for first, second in pairwise(files):
        if first.name == second.name:
            raise UserError(
                f"{first} and {second} have the same name, so the order of their rows is not "
                "defined: pass the files of one data set"
            )
    _check_set(files, partial)
    return files


def _list_folder(folder: Path) -> list[Path]:
    files = [path for path in folder.iterdir() if _is_parquet(path)]
    if not files:
        below = sorted({str(path.parent) for path in folder.rglob("*") if _is_parquet(path)})
        hint = f"; there are some in {', '.join(below)}: pass one of these folders" if below else ""
        raise MissingFileError(f"no .parquet files in {folder}{hint}")
    return files


def _is_parquet(path: Path) -> bool:
    hidden = path.name.startswith(".")
    return path.suffix.lower() == ".parquet" and not hidden and path.is_file()


def _natural(name: str) -> list[tuple[int, str]]:
    parts = re.findall(r"\d+|\D+", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _check_set(files: list[Path], partial: bool) -> None:
    matches = [_NUMBERED.fullmatch(file.name) for file in files]
    numbered = [match for match in matches if match]
    if not numbered:
        return
    sets = sorted({f"{match['stem']}-*-of-{match['count']}" for match in numbered})
    sets += [file.name for file, match in zip(files, matches, strict=True) if not match]
    if len(sets) > 1:
        raise UserError(
            f"the Parquet files must be of one set, got several ({', '.join(sets)}): "
            "pass the files of one"
        )
    count = int(numbered[0]["count"])
    missing = sorted(set(range(count)) - {int(match["index"]) for match in numbered})
    if missing and not partial:
        name = numbered[0]
        first = f"{name['stem']}-{missing[0]:0{len(name['index'])}d}-of-{name['count']}.parquet"
        raise MissingFileError(
            f"{len(missing)} of the {count} Parquet files are missing, the first is {first}: "
            "download them, or number only the rows of the files that are there with --partial"
        )
