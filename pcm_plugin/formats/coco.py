"""COCO captions files, ``{"images": [...], "annotations": [...]}``: reader and writer."""

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pcm_plugin.errors import UserError
from pcm_plugin.formats.atomic_io import write_json
from pcm_plugin.formats.image_ids import ids_of_files, normalize_id, refuse_repeated
from pcm_plugin.formats.images.folder import list_images
from pcm_plugin.formats.text.text_file import read_json

logger = logging.getLogger(__name__)


class CocoImage(NamedTuple):
    """An image of a COCO captions file.

    Attributes:
        image_id: Id as a text.
        file_name: File name relative to the folder of the images.
        captions: Captions in the order of the file.
    """

    image_id: str
    file_name: str
    captions: list[str]


def read_coco_images(path: str | os.PathLike, encoding: str | None = None) -> list[CocoImage]:
    """Read images and their captions, in the order of ``images``.

    Args:
        path: COCO captions JSON, optionally compressed with gzip.
        encoding: Encoding of the file. Defaults to None: see
            :func:`~pcm_plugin.formats.text.text_file.open_text`.

    Returns:
        The images, including those without captions. Captions that VizWiz marks as rejected or
        canned are skipped.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If it is not a COCO captions file, two images or two annotations share an id, or
            an annotation names an image that is not in the list. The message names the first ones.
    """
    content = read_json(path, encoding)
    try:
        images, annotations = content["images"], content["annotations"]
        ids = _read_ids(path, "images", images)
        _read_ids(path, "annotations", [row for row in annotations if "id" in row])
        captions: dict[str, list[str]] = {image_id: [] for image_id in ids}
        for annotation in annotations:
            image_id = normalize_id(annotation["image_id"])
            if image_id not in captions:
                raise UserError(
                    f"{path}: an annotation has image_id={annotation['image_id']!r}, "
                    'which is none of its "images"'
                )
            if not (annotation.get("is_rejected") or annotation.get("is_precanned")):
                captions[image_id].append(annotation["caption"])
        return [
            CocoImage(image_id, image["file_name"], captions[image_id])
            for image_id, image in zip(ids, images, strict=True)
        ]
    except (TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a COCO captions file: {error}") from error
    except KeyError as error:
        raise UserError(f"{path} is not a COCO captions file: no {error}") from error


def _read_ids(path: str | os.PathLike, member: str, rows: list[dict[str, Any]]) -> list[str]:
    ids = []
    for index, row in enumerate(rows):
        try:
            ids.append(normalize_id(row["id"]))
        except UserError as error:
            raise UserError(f"{path}: {member}[{index}]: {error}") from None
    what = f'{path}: the ids of "{member}"'
    refuse_repeated(lambda: ids, what, "renumber them if several files were joined")
    return ids


def coco_id(image_id: int | str) -> int | str:
    """Return an id as COCO's files have it: as a number if its text is a decimal number."""
    text = str(image_id)
    return int(text) if text.isdecimal() and str(int(text)) == text else image_id


def write_coco_captions(
    path: str | os.PathLike, entries: Iterable[tuple[int | str, str, list[str]]]
) -> None:
    """Write a COCO captions file.

    Args:
        path: File to write; its folder is created.
        entries: ``(image_id, file_name, captions)`` of each image. Ids that are decimal numbers
            are written as numbers, as in COCO; annotations are numbered from 1.

    Raises:
        UserError: If two images share an id.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    ids: set[int | str] = set()
    for name, file_name, captions in entries:
        image_id = coco_id(name)
        if image_id in ids:
            raise UserError(f"image ids must be unique, got {image_id!r} twice")
        ids.add(image_id)
        images.append({"id": image_id, "file_name": file_name})
        for caption in captions:
            number = len(annotations) + 1
            annotations.append({"id": number, "image_id": image_id, "caption": caption})
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"images": images, "annotations": annotations})


def all_images(path: Path, log_skipped: bool = True) -> list[CocoImage]:
    """Return all image files below a folder, without captions.

    The id of an image is its path without the suffix, or with it if files differ only by suffix.

    Args:
        path: The folder.
        log_skipped: Whether to log the skipped files, see
            :func:`pcm_plugin.formats.images.folder.list_images`. Defaults to True.
    """
    listing = list_images(path)
    if listing.skipped and log_skipped:
        logger.warning("%s: %s", path, listing.describe_skipped())
    ids = ids_of_files(listing.files)
    return [CocoImage(i, name, []) for i, name in zip(ids, listing.files, strict=True)]
