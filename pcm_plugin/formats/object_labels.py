"""Objects in images, as a detector or anybody else found them."""

import json
import os
from pathlib import Path
from typing import Any

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.image_ids import refuse_repeated


def load_object_labels(path: str | os.PathLike) -> dict[str, list[str]]:
    """Read a file of objects.

    Args:
        path: JSON, ``{image_id: [label, ...]}``.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If it holds something else, or an image twice.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no objects at {path}: give JSON, {{image_id: [label, ...]}}")
    try:
        objects = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique)
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(objects, dict):
        raise UserError(f"{path} holds a {type(objects).__name__}: give {{image_id: [label, ...]}}")
    for image_id, labels in objects.items():
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise UserError(
                f"{path}: the objects of {image_id!r} are {labels!r}: give a list of str"
            )
    return objects


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    refuse_repeated(
        lambda: (key for key, _ in pairs), "its image ids", "list the objects of each image once"
    )
    return dict(pairs)
