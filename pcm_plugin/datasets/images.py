"""Decode image files to upright 8-bit RGB, as an image viewer shows them.

The rules are listed in docs/images.md. Whatever a decoder raises becomes a ValueError, so that one
damaged file does not end a long run; errors of the disk remain OSErrors.
"""

import contextlib
import functools
import io
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from pcm_plugin.datasets.image_metadata import describe_content, strip_metadata
from pcm_plugin.datasets.pixel_values import color_to_8_bits, to_8_bits
from pcm_plugin.datasets.rawmode import PLANAR, is_16_bit_color, prepare_tiles, swap_byte_order

# Pillow only recognizes these or runs another program (PostScript's interpreter) to decode them.
_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
_MAX_ASPECT = 100
_MAX_BYTES = 2 << 30
_ORIENTATION = 0x0112
_PHOTOMETRIC = 262
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@functools.cache
def image_formats() -> tuple[str, ...]:
    """Return the formats that Pillow decodes by itself, as it names them."""
    Image.init()
    return tuple(name for name in Image.ID if name not in _NOT_DECODED)


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Return the file name suffixes of :func:`image_formats`, in lower case with the dot."""
    formats = set(image_formats())
    return frozenset(s.lower() for s, name in Image.EXTENSION.items() if name in formats)


def read_image(file: str | os.PathLike | BinaryIO | bytes) -> Image.Image:
    """Decode an image.

    Args:
        file: A file name, an open binary file, or the content of a file.

    Returns:
        The image, upright, RGB.

    Raises:
        OSError: If the file is missing or cannot be read.
        ValueError: If it is not an image, is damaged, or is too large.
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
            with contextlib.suppress(ValueError):
                return _decode(stripped, name)
        raise


def detect_format(data: bytes) -> str:
    """Return Pillow's name of the format of an image file's content, e.g. ``'JPEG'``.

    Raises:
        ValueError: If it is not an image.
    """
    try:
        with _decoding("it"), _open(data) as image:
            return image.format or ""
    except ValueError:
        stripped = strip_metadata(data)
        if stripped is None or stripped == data:
            raise
        return detect_format(stripped)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a Pillow image, loaded or not, to upright 8-bit RGB.

    Args:
        image: Any mode. Only its current frame is used.

    Raises:
        OSError: If its file cannot be read.
        ValueError: If it cannot be decoded, or has no pixels.
    """
    with _decoding("it"):
        return _convert(image)


def read_file(path: str | os.PathLike, name: str = "it") -> bytes:
    """Return the content of an image file.

    Args:
        path: The file.
        name: What messages of a ValueError call it. Defaults to ``'it'``.

    Raises:
        OSError: If the file is missing or cannot be read.
        ValueError: If it is a folder, is larger than 2 GiB, or cannot be the name of a file.
    """
    try:
        size = os.stat(path).st_size
    except FileNotFoundError:
        raise FileNotFoundError(f"no image at {path}") from None
    except ValueError as error:
        raise ValueError(f"{str(path)!r} cannot be a file name: {error}") from None
    if size > _MAX_BYTES:
        raise ValueError(f"{name} is larger than {_MAX_BYTES >> 30} GiB: save a smaller copy of it")
    try:
        return Path(path).read_bytes()
    except IsADirectoryError:
        raise ValueError(f"{name} is a folder") from None


def _decode(data: bytes, name: str) -> Image.Image:
    with _decoding(name), _open(data) as image:
        return _convert(image)


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
        raise ValueError(
            f"{name} has more than {limit:,} pixels: save a smaller copy of it"
        ) from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} is {error}") from None
    except Exception as error:
        # Decoders raise OSError without a number; one with a number comes from the disk.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        kind = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{name} cannot be decoded: {kind}{error}") from error


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


def _convert(image: Image.Image) -> Image.Image:
    rawmode = prepare_tiles(image)
    data = _content(image) if is_16_bit_color(rawmode) else None
    _load(image)
    if 0 in image.size:
        raise ValueError(f"it has no pixels, its size is {image.width} x {image.height}")
    upright = _TRANSPOSE.get(_orientation(image))
    if image.mode.startswith(("I", "F")) or rawmode == "L;S":
        converted = _gray(image, rawmode)
    else:
        converted = _widen(image, rawmode, data)
    rgb = _on_white(converted, image.format)
    return _crop(rgb if upright is None else rgb.transpose(upright))


def _content(image: Image.Image) -> bytes | None:
    file = getattr(image, "fp", None)
    if file is None:
        return None
    file.seek(0)
    return file.read()


def _load(image: Image.Image) -> None:
    """Decode the pixels; in PNG and TIFF what follows them (metadata) may be broken."""
    if not isinstance(image, ImageFile.ImageFile) or image.format not in ("PNG", "TIFF"):
        image.load()
        return
    load_end = image.load_end

    def tolerant() -> None:
        with contextlib.suppress(Exception):
            load_end()

    image.load_end = tolerant  # type: ignore[method-assign]
    try:
        image.load()
    finally:
        del image.load_end


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1, upright, if the EXIF data cannot be read."""
    with contextlib.suppress(Exception):
        value = image.getexif().get(_ORIENTATION, 1)
        return value if isinstance(value, int) else 1
    return 1


def _gray(image: Image.Image, rawmode: str) -> Image.Image:
    """Convert one channel of 16 or 32 bits to 8 bits, with an alpha channel where needed."""
    values = np.asarray(image)
    depth = None
    if rawmode.startswith("I;12"):
        depth = 12
    elif image.format == "PPM" and image.mode == "I":
        depth = 16  # Pillow has scaled by the maximum that the file states.
    if rawmode in ("I;32", "I;32N", "I;32L", "I;32B"):
        values = values.view(np.uint32)
    if rawmode == "L;S":
        values = values.view(np.int8)
    signed = rawmode in ("I;16S", "I;16BS", "I;16NS")
    gray = to_8_bits(values, depth, signed)
    # In TIFF, 0 may be white. Pillow inverts 8 bits only.
    if image.format == "TIFF" and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:
        gray = 255 - gray
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return Image.fromarray(gray)
    opaque = (values != transparent).astype(np.uint8) * 255
    return Image.fromarray(np.stack([gray, opaque], axis=-1), "LA")


def _widen(image: Image.Image, rawmode: str, data: bytes | None) -> Image.Image:
    """Correct what Pillow loses of 16-bit colors and of transparent values of less than 8 bits."""
    transparent = image.info.get("transparency")
    if rawmode in ("L;2", "L;4") and isinstance(transparent, int):
        image = image.copy()
        image.info["transparency"] = transparent * (85 if rawmode == "L;2" else 17)
    if data is None and rawmode != PLANAR:
        return image
    # Pillow keeps the high bytes: 12-bit colors in a 16-bit file would be almost black.
    high = np.asarray(image)
    if high[..., :3].max() > 15 and transparent is None:
        return image
    if data is None:
        raise ValueError("16-bit planar TIFF with dark colors: save it with 8 bits per channel")
    with _open(data) as again:
        prepare_tiles(again)
        swap_byte_order(again)
        _load(again)
        low = np.asarray(again)
    return Image.fromarray(color_to_8_bits(high, low, transparent))


def _on_white(image: Image.Image, format: str | None) -> Image.Image:
    """Composite an image on white if it has transparent pixels."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    image = image.convert("RGBA")
    lowest, highest = image.getchannel("A").getextrema()
    # Many programs leave the fourth byte of BMP and TGA files 0.
    unused = highest == 0 and format in ("BMP", "DIB", "TGA")
    if lowest == 255 or unused:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _crop(image: Image.Image) -> Image.Image:
    """Limit the aspect ratio: resizing the short side of a line of pixels would fill the memory."""
    width, height = image.size
    limit = _MAX_ASPECT * min(width, height)
    if max(width, height) <= limit:
        return image
    left, top = max(0, (width - limit) // 2), max(0, (height - limit) // 2)
    return image.crop((left, top, left + min(width, limit), top + min(height, limit)))
