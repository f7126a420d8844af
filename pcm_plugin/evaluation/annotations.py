"""References and predictions in files, and ids by which they meet."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pcm_plugin.datasets.coco import coco_id
from pcm_plugin.synthesis.captions import CaptionFile

_COCO_FILE = re.compile(r"COCO_\w+_0*(\d+)")


def image_key(image_id: Any) -> str:
    """An image's id as text: 7 and ``'7'`` are one image, and so are a path and its text."""
    return str(image_id.item() if hasattr(image_id, "item") else image_id)


def find_image(image_id: Any, known: Mapping[str, Any]) -> str | None:
    """The key of an image among known ones.

    An id that is a file, ``'images/a.jpg'``, also stands for the image that is called by its name
    without the ending, ``'a'``; one of COCO's files, ``'COCO_val2014_000000000042.jpg'``, for the
    image of its number.

    Args:
        image_id: Any id.
        known: What is known, by :func:`image_key`.

    Returns:
        The key, None if the image is not known.
    """
    key = image_key(image_id)
    name = key.replace("\\", "/").rpartition("/")[2]
    stem = name.rpartition(".")[0] or name
    numbered = _COCO_FILE.fullmatch(stem)
    number = numbered[1] if numbered else ""
    return next((k for k in (key, name, stem, number) if k in known), None)


def reference_file(path: str | os.PathLike, split: str | None = None) -> CaptionFile:
    """A file of references.

    Args:
        path: COCO captions JSON, Karpathy's JSON, a Flickr token file, or another form that
            :class:`~pcm_plugin.synthesis.captions.CaptionFile` reads.
        split: Of a file that knows splits. Defaults to None: its ``'test'`` split.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no caption file.
    """
    file = CaptionFile(Path(path), split=split)
    return replace(file, split="test") if split is None and file.knows_splits() else file


def read_references(file: CaptionFile) -> dict[str, list[str]]:
    """Read the references of images.

    Args:
        file: Such as :func:`reference_file` gives.

    Returns:
        References by :func:`image_key`, in the order of the file.

    Raises:
        ValueError: If the file cannot be read, has no such split, or no captions.
    """
    references: dict[str, list[str]] = {}
    for caption in file:
        references.setdefault(caption.image_id, []).append(caption.text)
    if not references:
        raise ValueError(f"{file.path} holds no captions")
    return references


def read_groups(path: str | os.PathLike, field: str) -> dict[str, str]:
    """Read which group each image belongs to.

    Args:
        path: JSON in COCO's form, UTF-8, whose ``images`` have ``field``, as NoCaps' have
            ``"domain": "near-domain"``.
        field: What holds the group's name.

    Returns:
        Group by :func:`image_key`; an image whose ``field`` is missing is in none.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has another form, or no image has the field.
    """
    try:
        images = json.loads(Path(path).read_text(encoding="utf-8"))["images"]
        groups = {image_key(i["id"]): str(i[field]) for i in images if i.get(field) is not None}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f'{path}: groups need JSON with "images", each with "id" and {field!r}: {error!r}'
        ) from error
    if not groups:
        raise ValueError(f"{path}: none of its {len(images)} images has {field!r}")
    return groups


def read_predictions(path: str | os.PathLike) -> dict[Any, str]:
    """Read a results file in COCO's form, ``[{"image_id": ..., "caption": ...}, ...]``.

    Args:
        path: JSON, UTF-8.

    Returns:
        Caption by image id as it stands in the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no results file, or an image has two captions.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no captions at {path}")
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # JSON's and Unicode's errors are ValueErrors
        raise ValueError(f"{path} is no results file: {error}") from error
    wanted = f'{path} is no results file: it should be [{{"image_id": 7, "caption": "a dog"}}, ...]'
    if not isinstance(rows, list) or not rows:
        raise ValueError(wanted)
    found: dict[Any, str] = {}
    keys: set[str] = set()
    for index, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("caption"), str):
            raise ValueError(f"{wanted}, but entry {index} is {str(row)[:80]}")
        if not isinstance(row.get("image_id"), int | str):
            raise ValueError(f"{wanted}, but entry {index} has no image_id")
        if image_key(row["image_id"]) in keys:
            raise ValueError(f"{path}: image {row['image_id']!r} has two captions")
        keys.add(image_key(row["image_id"]))
        found[row["image_id"]] = row["caption"]
    return found


def coco_results(captions: Iterable[tuple[Any, str]]) -> list[dict[str, Any]]:
    """Captions in the form that COCO's tools load.

    Args:
        captions: ``(image_id, caption)`` of each image. Ids that are plain decimal numbers are
            written as numbers, others as text.
    """
    return [{"image_id": coco_id(image_key(i)), "caption": caption} for i, caption in captions]
