"""Check that images of a COCO captions file have unique ids and every caption has an image."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any, BinaryIO

import numpy as np

from pcm_plugin.errors import UserError
from pcm_plugin.formats.captions.ids import HashColumn, hash_text
from pcm_plugin.formats.captions.json_documents import read_items
from pcm_plugin.formats.captions.record import as_id
from pcm_plugin.formats.text.errors import FileFormatError

_SHOWN = 3


def check_coco_images(open_file: Callable[[], BinaryIO]) -> None:
    """Check the ids of a COCO captions file that lists its images, without keeping them in memory.

    Args:
        open_file: Opens the file.

    Raises:
        FileFormatError: If two images have the same id, an image has none, or an annotation is of
            an image that is not in the list; names the first ones.
    """
    with ExitStack() as stack:
        images, captioned = (stack.enter_context(closing(HashColumn())) for _ in range(2))
        count = 0
        for _, image_id in _ids(open_file, "images", "id"):
            images.add(image_id)
            count += 1
        if not count:
            return
        repeated = images.repeated()
        if len(repeated):
            names, places = _locate(open_file, "images", repeated)
            verb = "is" if len(names) == 1 else "are"
            raise FileFormatError(
                f'the ids of "images" must be unique, but {", ".join(names)} {verb} repeated '
                f"({places}); renumber the images if several files were joined, and list each "
                "image once"
            )
        for _, image_id in _ids(open_file, "annotations", "image_id"):
            captioned.add(image_id)
        missing = captioned.missing_in(images)
        if len(missing):
            names, places = _locate(open_file, "annotations", missing)
            raise FileFormatError(
                f'an annotation has image_id={names[0]}, which is none of its "images" ({places})'
            )


def _ids(open_file: Callable[[], BinaryIO], member: str, key: str) -> Iterator[tuple[int, str]]:
    for index, row in enumerate(read_items(open_file, f"{member}.item")):
        if not isinstance(row, dict):
            continue
        try:
            value = as_id(row.get(key))
        except UserError as error:
            raise FileFormatError(f"{member}[{index}]: {error}") from None
        if value is None:
            raise FileFormatError(f'{member}[{index}] has no "{key}"')
        yield index, value


def _locate(
    open_file: Callable[[], BinaryIO], member: str, hashes: np.ndarray
) -> tuple[list[str], str]:
    """Return the first ids with these hashes, and the first two places of each."""
    some = set(hashes[:1000].tolist())
    places: dict[str, list[Any]] = {}
    for index, value in _ids(open_file, member, "id" if member == "images" else "image_id"):
        if hash_text(value) in some and (value in places or len(places) < _SHOWN):
            places.setdefault(value, []).append(f"{member}[{index}]")
    return [*map(repr, places)], ", ".join(place for two in places.values() for place in two[:2])
