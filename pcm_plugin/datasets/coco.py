"""COCO captions files: ``{"images": [...], "annotations": [...]}``."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pcm_plugin.datasets.durable import write_json


class CocoImage(NamedTuple):
    """An image of a COCO captions file.

    Attributes:
        image_id: Its id, as a string.
        file_name: Its file, relative to the folder of the images.
        captions: Its captions in the order of the file.
    """

    image_id: str
    file_name: str
    captions: list[str]


def read_coco_images(path: str | os.PathLike) -> list[CocoImage]:
    """Read images and their captions, in the order of ``images``.

    Args:
        path: COCO captions JSON, UTF-8.

    Returns:
        Id, file name and captions of each image; an image without captions has none.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a COCO captions file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        captions: dict[Any, list[str]] = {image["id"]: [] for image in content["images"]}
        for annotation in content["annotations"]:
            if annotation["image_id"] not in captions:
                raise ValueError(
                    f"{path}: an annotation has image_id={annotation['image_id']!r}, "
                    'which is none of its "images"'
                )
            captions[annotation["image_id"]].append(annotation["caption"])
        return [
            CocoImage(str(image["id"]), image["file_name"], captions[image["id"]])
            for image in content["images"]
        ]
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
        raise ValueError(f"{path} is not a COCO captions file: {error}") from error
    except KeyError as error:
        raise ValueError(f"{path} is not a COCO captions file: no {error}") from error


def coco_id(image_id: int | str) -> int | str:
    """An id as COCO's files have it: a number where its text is a plain decimal one."""
    text = str(image_id)
    return int(text) if text.isdecimal() and str(int(text)) == text else image_id


def write_coco_captions(
    path: str | os.PathLike, entries: Iterable[tuple[int | str, str, list[str]]]
) -> None:
    """Write a COCO captions file.

    Args:
        path: File to write; its folder is made.
        entries: ``(image_id, file_name, captions)`` of each image. Ids that are numbers are
            written as such, as COCO has them; annotations are numbered from 1.

    Raises:
        ValueError: If two images have one id.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    ids: set[int | str] = set()
    for name, file_name, captions in entries:
        image_id = coco_id(name)
        if image_id in ids:
            raise ValueError(f"two images have the id {image_id!r}")
        ids.add(image_id)
        images.append({"id": image_id, "file_name": file_name})
        for caption in captions:
            number = len(annotations) + 1
            annotations.append({"id": number, "image_id": image_id, "caption": caption})
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"images": images, "annotations": annotations})
