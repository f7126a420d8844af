"""Files of regions of images: COCO JSON with ``bbox``, or JSONL with ``box`` or ``point``."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.captions.lines import read_lines
from pcm_plugin.formats.text.errors import FileFormatError
from pcm_plugin.formats.text.text_file import open_text, read_json


class Region(NamedTuple):
    """A box or a point of an image, in pixels of the image.

    Attributes:
        box: x0, y0, x1, y1; x1 and y1 are exclusive. None for a point.
        point: x and y. None for a box.
        region_id: Id of the region in its file, or None.
    """

    box: tuple[float, ...] | None = None
    point: tuple[float, ...] | None = None
    region_id: int | str | None = None


class ImageRegions(NamedTuple):
    """Regions of an image in a file.

    Attributes:
        file_name: File name of the image, as in the file.
        image_id: Id of the image in the file, or None.
        regions: The regions in the order of the file.
    """

    file_name: str
    image_id: int | str | None
    regions: list[Region]


def read_regions(path: str | os.PathLike) -> list[ImageRegions]:
    """Read a file of regions.

    - ``.json``: COCO annotations, ``{"images": [{"id", "file_name"}], "annotations": [{"id",
      "image_id", "bbox": [x, y, width, height]}]}``.
    - ``.jsonl``: per line ``{"image": FILE, "box": [x0, y0, x1, y1]}`` or ``{"image": FILE,
      "point": [x, y]}``, with ``id`` if wanted.

    Whether boxes are valid for their images is not checked.

    Args:
        path: The file.

    Returns:
        The images that have regions, in the order of the list of images, or of their first line.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If it is not such a file, or has no regions; the message names the place.
    """
    suffix = Path(path).suffix.lower()
    if not Path(path).is_file():
        raise MissingFileError(f"no file of regions at {path}")
    if suffix == ".json":
        found = _read_coco(path)
    elif suffix == ".jsonl":
        found = _read_lines(path)
    else:
        raise UserError(f"a file of regions must be COCO JSON (.json) or .jsonl, got {path}")
    if not found:
        raise UserError(f"{path} contains no regions")
    return found


def _read_coco(path: str | os.PathLike) -> list[ImageRegions]:
    content = read_json(path)
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        raise UserError(f'{path} is not a COCO annotations file: no "images" and "annotations"')
    images: dict[Any, ImageRegions] = {}
    for place, row in _rows(path, "images", content["images"]):
        key = _value(place, row, "id", (int, str))
        images[key] = ImageRegions(_value(place, row, "file_name", (str,)), key, [])
    for place, row in _rows(path, "annotations", content["annotations"]):
        image_id = _value(place, row, "image_id", (int, str))
        if image_id not in images:
            raise UserError(f'{place}: image_id={image_id!r} is none of the "images"')
        x, y, width, height = _numbers(place, row, "bbox", 4)
        box = (x, y, x + width, y + height)
        images[image_id].regions.append(Region(box=box, region_id=row.get("id")))
    return [image for image in images.values() if image.regions]


def _read_lines(path: str | os.PathLike) -> list[ImageRegions]:
    images: dict[str, ImageRegions] = {}
    try:
        with open_text(path) as file:
            for number, line in read_lines(file):
                if isinstance(line, FileFormatError):
                    raise line
                if line.strip():
                    name, region = _read_line(f"{path}: line {number}", line)
                    images.setdefault(name, ImageRegions(name, None, [])).regions.append(region)
    except FileFormatError as error:
        raise UserError(error.describe(path)) from None
    return list(images.values())


def _read_line(place: str, line: str) -> tuple[str, Region]:
    """Return the file name of the image and the region."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{place} is not JSON: {error}") from None
    if not isinstance(row, dict) or ("box" in row) == ("point" in row):
        raise UserError(f'{place} must have either "box" or "point", got {line.strip()[:200]!r}')
    name = _value(place, row, "image", (str,))
    if "box" in row:
        return name, Region(box=_numbers(place, row, "box", 4), region_id=row.get("id"))
    return name, Region(point=_numbers(place, row, "point", 2), region_id=row.get("id"))


def _rows(
    path: str | os.PathLike, member: str, rows: Any
) -> Iterable[tuple[str, Mapping[str, Any]]]:
    if not isinstance(rows, Sequence) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f'{path}: "{member}" must be a list of objects')
    return ((f"{path}: {member}[{index}]", row) for index, row in enumerate(rows))


def _value(place: str, row: Mapping[str, Any], key: str, kinds: tuple[type, ...]) -> Any:
    value = row.get(key)
    if not isinstance(value, kinds):
        raise UserError(f'{place} must have "{key}", got {value!r}')
    return value


def _numbers(place: str, row: Mapping[str, Any], key: str, count: int) -> tuple[float, ...]:
    values = row.get(key)
    if (
        not isinstance(values, list)
        or len(values) != count
        or not all(type(value) in (int, float) for value in values)
    ):
        raise UserError(f'{place} must have "{key}", a list of {count} numbers, got {values!r}')
    return tuple(values)
