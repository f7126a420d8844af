"""Decode image files to upright 8-bit RGB, as an image viewer shows them.

The rules are listed in docs/images.md. All exceptions of a decoder become a ``UserError``, so that
one damaged file does not end a long run; errors of the disk remain OSErrors.
"""

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image, UnidentifiedImageError

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.images.conversion import convert_to_rgb
from pcm_plugin.formats.images.metadata import describe_content, strip_metadata
from pcm_plugin.formats.images.suffixes import image_formats

_MAX_BYTES = 2 << 30


def read_image(file: str | os.PathLike | BinaryIO | bytes) -> Image.Image:
    """Decode an image.

    Args:
        file: A file name, an open binary file, or the content of a file.

    Returns:
        The image, upright, RGB.

    Raises:
        OSError: If the file is missing or cannot be read.
        UserError: If it is not an image, is damaged, or is too large.
    """
    name = str(file) if isinstance(file, str | os.PathLike) else "it"
    if isinstance(file, bytes):
        data = file
    else:
        data = read_file(file, name) if isinstance(file, str | os.PathLike) else file.read()
    try:
        return _decode(data, name)
    except ValueError:
        # Broken or oversized metadata make some decoders give up before they reach the pixels.
        stripped = strip_metadata(data)
        if stripped not in (None, data):
            with contextlib.suppress(UserError):
                return _decode(stripped, name)
        raise


class ImageHeader(NamedTuple):
    """What an image file says before its pixels.

    Attributes:
        format: Pillow's name of the format, e.g. ``'JPEG'``.
        num_pixels: Width times height.
    """

    format: str
    num_pixels: int


def read_header(data: bytes) -> ImageHeader:
    """Read the header of an image file's content, without decoding it.

    Raises:
        UserError: If it is not an image.
    """
    try:
        with _decoding("it"), _open(data) as image:
            return ImageHeader(image.format or "", image.width * image.height)
    except ValueError:
        stripped = strip_metadata(data)
        if stripped is None or stripped == data:
            raise
        return read_header(stripped)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a Pillow image, loaded or not, to upright 8-bit RGB.

    Args:
        image: Any mode. Only its current frame is used.

    Raises:
        OSError: If its file cannot be read.
        UserError: If it cannot be decoded, or has no pixels.
    """
    with _decoding("it"):
        return convert_to_rgb(image)


def read_file(path: str | os.PathLike, name: str = "it") -> bytes:
    """Return the content of an image file.

    Args:
        path: The file.
        name: Name of the image in messages. Defaults to ``'it'``.

    Raises:
        OSError: If the file is missing or cannot be read.
        UserError: If it is a folder, is larger than 2 GiB, or cannot be the name of a file.
    """
    try:
        size = os.stat(path).st_size
    except FileNotFoundError:
        raise MissingFileError(f"no image at {path}") from None
    except ValueError as error:
        raise UserError(f"{str(path)!r} cannot be a file name: {error}") from None
    if size > _MAX_BYTES:
        raise UserError(f"{name} is larger than {_MAX_BYTES >> 30} GiB: save a smaller copy of it")
    try:
        return Path(path).read_bytes()
    except IsADirectoryError:
        raise UserError(f"{name} is a folder") from None


def _decode(data: bytes, name: str) -> Image.Image:
    with _decoding(name), _open(data) as image:
        return convert_to_rgb(image)


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=image_formats())
    except UnidentifiedImageError:
        content = describe_content(data)
        raise UnidentifiedImageError(f"not an image in a supported format{content}") from None


@contextlib.contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turn every error of a decoder into a ValueError that names the image."""
    try:
        with _quiet:
            yield
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise UserError(
            f"{name} has more than {limit:,} pixels: save a smaller copy of it"
        ) from error
    except UnidentifiedImageError as error:
        raise UserError(f"{name} is {error}") from None
    except Exception as error:
        # Decoders raise OSError without a number; one with a number comes from the disk.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        kind = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        raise UserError(f"{name} cannot be decoded: {kind}{error}") from error


class _QuietPillow:
    """Context without Pillow's warnings, e.g. one per image with damaged EXIF data.

    Filters belong to the process: the first thread sets them, the last one restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._filters = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._depth:
                self._filters.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._depth += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._depth -= 1
            if not self._depth:
                self._filters.close()


_quiet = _QuietPillow()
