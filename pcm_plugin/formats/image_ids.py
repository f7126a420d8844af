"""Ids of images and captions: normalization, uniqueness, and ids from file names."""

import functools
import hashlib
import math
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from pcm_plugin.errors import UserError

_MAX_NAMED = 5  # in a message

# Formats that Pillow reads only with plugins.
_OTHER_SUFFIXES = (".heic", ".heif", ".jxl")
_COCO_NAME = re.compile(r"(?:COCO_[A-Za-z0-9]+_)?([0-9]{12})")
_MAX_NUMBER = 2**53 - 1  # JSON readers that use doubles lose digits of larger numbers


def normalize_id(value: Any) -> str:
    """Return an id as text, the same for ``7``, ``7.0``, ``'7'`` and ``torch.tensor(7)``.

    Args:
        value: An id from a file or a data sample: a number, a text, a path, or an object whose
            ``str`` identifies it.

    Raises:
        UserError: If it is null, NaN, a bool or empty.
    """
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool) or value is None or value == "":
        raise UserError(f"an id must be a number or a text, got {value!r}")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UserError(f"an id must be a number or a text, got {value!r}")
        return str(int(value)) if value.is_integer() else str(value)
    return str(value)


@functools.cache
def _image_suffixes() -> frozenset[str]:
    from PIL import Image

    Image.init()
    return frozenset({*Image.registered_extensions(), *_OTHER_SUFFIXES})


def strip_image_suffix(name: str) -> str:
    """Return a file name without its suffix if that is one of an image format."""
    stem, dot, suffix = name.rpartition(".")
    is_image = stem and f"{dot}{suffix}".lower() in _image_suffixes()
    return stem if is_image else name


def coco_number(name: str) -> int | None:
    """Return the image id in a COCO file name, of 2014 or of 2017, or None for another name.

    Args:
        name: Such as ``'val2014/COCO_val2014_000000000042.jpg'`` or ``'000000000042.jpg'``.
    """
    match = _COCO_NAME.fullmatch(strip_image_suffix(name.replace("\\", "/").rpartition("/")[2]))
    return int(match[1]) if match else None


def results_id(name: str) -> int | None:
    """Return the number in a file name that is its id in COCO results, or None if it has none.

    This is the number of a COCO file name, or a name of ASCII digits only, such as ``'9.png'``.
    """
    number = coco_number(name)
    stem = strip_image_suffix(name.replace("\\", "/").rpartition("/")[2])
    if number is None and re.fullmatch(r"[0-9]{1,16}", stem):
        number = int(stem)
    return number if number is not None and number <= _MAX_NUMBER else None


def unique_ids(candidates: Sequence[Sequence[int | str]]) -> list[int | str]:
    """Choose an id for each item so that no two items share one.

    Every item gets its first candidate; items that would share an id get their next candidates
    instead. The choice does not depend on the order of the items.

    Args:
        candidates: Ids of each item in order of preference. The last ones must be unique.

    Raises:
        UserError: If the last candidates of several items are equal.
    """
    level = [0] * len(candidates)
    while True:
        chosen = [ids[i] for ids, i in zip(candidates, level, strict=True)]
        counts = Counter(map(str, chosen))
        clashing = [n for n, value in enumerate(chosen) if counts[str(value)] > 1]
        if not clashing:
            return chosen
        movable = [n for n in clashing if level[n] + 1 < len(candidates[n])]
        if not movable:
            repeated = dict.fromkeys(str(chosen[n]) for n in clashing)
            raise UserError(f"ids must be unique, but {name_some(repeated)} are repeated")
        for n in movable:
            level[n] += 1


def ids_of_files(names: Sequence[str]) -> list[str]:
    """Return an id for each file: its name without the suffix, or with it where that is not unique.

    Args:
        names: Different file names, relative to one folder, with ``/``. ``['a.png', 'b.png',
            'b.jpg']`` get ``['a', 'b.png', 'b.jpg']``.
    """
    return [str(x) for x in unique_ids([(strip_image_suffix(name), name) for name in names])]


def results_ids(names: Sequence[str], paths: Sequence[str]) -> list[int | str]:
    """Return an id for each file of a COCO results file.

    It is the file's number if it has one (see :func:`results_id`), else its name without the
    suffix. Files that would share an id get their names without suffix, then with it, then their
    paths.

    Args:
        names: File names relative to the folder that they were found in.
        paths: Their different paths.
    """
    candidates: list[list[int | str]] = []
    for name, path in zip(names, paths, strict=True):
        number = results_id(name)
        posix = str(PurePosixPath(name.replace("\\", "/")))
        texts: list[int | str] = [strip_image_suffix(posix), posix, path]
        candidates.append(texts if number is None else [number, *texts])
    return unique_ids(candidates)


def find_repeated(read: Callable[[], Iterable[str]]) -> dict[str, int]:
    """Return the repeated ids in the order of their first occurrence.

    It needs 8 bytes of memory per id.

    Args:
        read: Returns all ids; it is called a second time if some are repeated.

    Returns:
        Counts of the repeated ids.
    """
    import numpy as np

    hashes = array("Q", (_hash(value) for value in read()))
    ordered = np.sort(np.frombuffer(hashes, dtype=np.uint64)) if hashes else np.empty(0, np.uint64)
    repeated = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if not repeated:
        return {}
    counts = Counter(value for value in read() if _hash(value) in repeated)
    return {value: count for value, count in counts.items() if count > 1}


def refuse_repeated(read: Callable[[], Iterable[str]], what: str, fix: str) -> None:
    """Check that ids are unique.

    Args:
        read: See :func:`find_repeated`.
        what: Description of the ids for the message, such as ``'image ids of FILE'``.
        fix: Advice for the message.

    Raises:
        UserError: If some are repeated; the message names the first.
    """
    repeated = find_repeated(read)
    if repeated:
        verb = "is" if len(repeated) == 1 else "are"
        raise UserError(f"{what} must be unique, but {name_some(repeated)} {verb} repeated; {fix}")


def name_some(ids: Iterable[Any]) -> str:
    """Return the first ids as text for a message, and how many more there are."""
    every = [repr(i) for i in ids]
    more = len(every) - _MAX_NAMED
    return ", ".join(every[:_MAX_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _hash(value: str) -> int:
    digest = hashlib.blake2b(value.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
