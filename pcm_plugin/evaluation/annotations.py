"""Files with predictions and with groups of images."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.evaluation.matching import ImageName, match_images
from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.coco import coco_id
from pcm_plugin.formats.image_ids import name_some, normalize_id, refuse_repeated
from pcm_plugin.formats.text.text_file import read_json

_FILE_FIELDS = ("image", "file_name")


class Prediction(NamedTuple):
    """Entry of a results file.

    Attributes:
        image_id: Id of the image as text.
        caption: Caption of the image.
        file_name: File of the image, None if the entry does not name it.
    """

    image_id: str
    caption: str
    file_name: str | None = None

    @property
    def name(self) -> ImageName:
        """Return the fields that identify the image."""
        return ImageName(self.image_id, self.file_name)


def read_groups(path: str | os.PathLike, field: str) -> list[tuple[ImageName, str]]:
    """Read the group of each image.

    Args:
        path: JSON file in COCO's format, UTF-8, whose ``images`` have ``field``. NoCaps has
            ``"domain": "near-domain"``.
        field: Field with the name of the group.

    Returns:
        Images and their groups. Images without ``field`` are left out.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If the file has another format, no image has the field, or images share an id.
    """
    content = _read_json(path, "groups")
    try:
        images = content["images"]
        groups = [
            (ImageName(normalize_id(i["id"]), i.get("file_name") or None), str(i[field]))
            for i in images
            if i.get(field) is not None
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f'{path}: groups need JSON with "images", each with "id" and {field!r}: {error!r}'
        ) from error
    if not groups:
        raise UserError(f"{path}: none of its {len(images)} images has {field!r}")
    refuse_repeated(
        lambda: (name.image_id for name, _ in groups),
        f'{path}: the ids of "images"',
        "list each image once",
    )
    return groups


def find_groups(
    images: Sequence[ImageName], groups: Sequence[tuple[ImageName, str]]
) -> list[str | None]:
    """Return the group of each image, None for images without a group.

    Args:
        images: The images.
        groups: Images and their groups, from :func:`read_groups`.
    """
    indices = match_images(images, [name for name, _ in groups])
    return [None if i is None else groups[i][1] for i in indices]


def read_predictions(path: str | os.PathLike) -> list[Prediction]:
    """Read a COCO results file, ``[{"image_id": ..., "caption": ...}, ...]``.

    Entries may name the file of the image as ``image``, which ``pcm caption`` writes, or as
    ``file_name``. In that case ``image_id`` may be missing.

    Args:
        path: JSON file, UTF-8.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If it is not a results file, or an image has two captions.
    """
    expected = f'{path} must be a COCO results file, [{{"image_id": 7, "caption": "a dog"}}, ...]'
    try:
        rows = _read_json(path, "captions")
    except MissingFileError:
        raise
    except UserError as error:
        raise _explain_format(path, expected) or error from None
    if not isinstance(rows, list) or not rows:
        kind = "an empty list" if rows == [] else f"a {type(rows).__name__}"
        raise _explain_format(path, expected) or UserError(f"{expected}, got {kind}")
    found = []
    for index, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("caption"), str):
            raise UserError(f"{expected}, but entry {index} is {str(row)[:80]}")
        named = (row[field] for field in _FILE_FIELDS if isinstance(row.get(field), str))
        file = next(filter(None, named), None)
        image_id = row.get("image_id", file)
        if not isinstance(image_id, int | float | str):
            raise UserError(f"{expected}, but entry {index} has no image_id")
        try:
            found.append(Prediction(normalize_id(image_id), row["caption"], file))
        except UserError as error:
            raise UserError(f"{path}: image_id of entry {index}: {error}") from None
    counts: dict[str, int] = {}
    for prediction in found:
        counts[prediction.image_id] = counts.get(prediction.image_id, 0) + 1
    repeated = [image_id for image_id, count in counts.items() if count > 1]
    if repeated:
        raise UserError(
            f"{path}: every image must have one caption, but {name_some(repeated)} "
            f"{'has' if len(repeated) == 1 else 'have'} several; write one caption per image"
        )
    return found


def _read_json(path: str | os.PathLike, what: str) -> Any:
    if not Path(path).is_file():
        raise MissingFileError(f"no {what} at {path}")
    return read_json(path)


def _explain_format(path: str | os.PathLike, expected: str) -> UserError | None:
    """Return the error for a caption file of another format; None for other files."""
    try:
        captions = CaptionFile(Path(path))
        form = captions.format_name()
        captions.scan()
    except UserError:
        return None
    return UserError(
        f"{expected}, got {form}: convert it with pcm convert-captions {path} --results "
        "--out NAME.json"
    )


def coco_results(captions: Iterable[tuple[Any, str]]) -> list[dict[str, Any]]:
    """Return captions in COCO's results format.

    Args:
        captions: ``(image_id, caption)`` of each image. Ids that are plain decimal numbers become
            numbers, other ids become text.
    """
    return [{"image_id": coco_id(normalize_id(i)), "caption": caption} for i, caption in captions]
