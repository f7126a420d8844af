"""Object labels per image, for example from a detector.

The file comes from outside of this package: a JSON object ``{image_id: [label, ...]}``.
"""

import json
import os
from pathlib import Path
from typing import Any

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.image_ids import refuse_repeated

_EXPECTED = "{image_id: [label, ...]}"


def load_object_labels(path: str | os.PathLike) -> dict[str, list[str]]:
    """Read a file of object labels.

    Args:
        path: JSON file, ``{image_id: [label, ...]}``.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If it holds something else, or an image twice.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no object labels at {path}: write JSON, {_EXPECTED}")
    try:
        labels_by_image = json.loads(
            path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique_keys
        )
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(labels_by_image, dict):
        raise UserError(f"{path} must hold {_EXPECTED}, got a {type(labels_by_image).__name__}")
    for image_id, labels in labels_by_image.items():
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise UserError(
                f"{path}: the labels of {image_id!r} must be a list of str, got {labels!r}"
            )
    return labels_by_image


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    refuse_repeated(
        lambda: (key for key, _ in pairs), "its image ids", "list the labels of each image once"
    )
    return dict(pairs)
