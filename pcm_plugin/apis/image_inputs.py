"""Inputs of the inferencer: files, folders, arrays, PIL images and iterables of these."""

import errno
import itertools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.images.folder import is_utf8, list_images, printable
from pcm_plugin.formats.images.image_io import read_image, to_rgb

# Errors of one file (missing, no permission, invalid name), not of the disk.
_FILE_ERRNOS = (
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR),
    *(errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, None),
)

logger = logging.getLogger(__name__)


class InputImage(NamedTuple):
    """An RGB image.

    Attributes:
        name: File name, or index of the input.
        image: The image.
    """

    name: str
    image: Image.Image


def iter_inputs(inputs: Any) -> tuple[Iterator[Any], int | None]:
    """Return an iterator over single inputs, and their number or None if it is unknown."""
    if isinstance(inputs, str | os.PathLike):
        files = _list_folder(Path(inputs)) if Path(inputs).is_dir() else [inputs]
        return iter(files), len(files)
    if isinstance(inputs, np.ndarray | Image.Image | Tensor) or not isinstance(inputs, Iterable):
        return iter([inputs]), 1
    if not isinstance(inputs, Sequence):  # such as a generator, which is read lazily
        return (item for part in inputs for item in iter_inputs(part)[0]), None
    parts = [iter_inputs(part) for part in inputs]
    counts = [count for _, count in parts]
    total = None if None in counts else sum(count or 0 for count in counts)
    return itertools.chain.from_iterable(items for items, _ in parts), total


def _list_folder(folder: Path) -> list[Path]:
    listing = list_images(folder)
    if listing.skipped:
        logger.warning("%s: %s", folder, listing.describe_skipped())
    if not listing.files:
        raise MissingFileError(f"{folder} contains no images")
    return [folder / name for name in listing.files]


def load_input(index: int, item: Any, skip_invalid: bool = False) -> InputImage | dict[str, str]:
    """Decode one input.

    Args:
        index: Index of the input, used as its name if it is not a file.
        item: File, array or PIL image.
        skip_invalid: Whether to return a dict with ``image`` and ``error`` for an image that cannot
            be read. Errors of the disk are always raised. Defaults to False.
    """
    is_file = isinstance(item, str | os.PathLike)
    name = printable(str(item)) if is_file and not is_utf8(str(item)) else str(item)
    name = name if is_file else str(index)
    try:
        return InputImage(name, _load(index, item))
    except (OSError, UserError) as error:
        # A failing disk must not be reported as invalid images.
        if not skip_invalid or (isinstance(error, OSError) and error.errno not in _FILE_ERRNOS):
            raise
        return {"image": name, "error": str(error)}


def _load(index: int, item: Any) -> Image.Image:
    if isinstance(item, str | os.PathLike):
        name = str(item)
        if "://" in name:
            raise UserError(f"{name} is a URL: download the file first")
        if not is_utf8(name):
            raise UserError(f"{printable(name)} is not a valid UTF-8 file name: rename the file")
        return read_image(item)
    if isinstance(item, Image.Image):
        return to_rgb(item)
    if not isinstance(item, np.ndarray):
        raise TypeError(
            f"input {index} must be a file, a folder, a uint8 array or a PIL image, got "
            f"{type(item).__name__}"
        )
    if item.dtype != np.uint8 or item.ndim not in (2, 3) or item.shape[2:] not in ((), (3,)):
        raise UserError(
            f"input {index} must be an RGB or gray array (H, W, 3) or (H, W) of uint8, got "
            f"{item.shape} of {item.dtype}"
        )
    return to_rgb(Image.fromarray(item))
