"""Convert Pillow images of any mode to upright 8-bit RGB, as an image viewer shows them."""

import contextlib
import io

import numpy as np
from PIL import Image, ImageFile

from pcm_plugin.errors import UserError
from pcm_plugin.formats.images.pixel_values import channels_to_8_bits, to_8_bits
from pcm_plugin.formats.images.rawmode import (
    GRAY_ALPHA,
    PLANAR,
    is_16_bit_color,
    prepare_tiles,
    split_bytes,
    swap_byte_order,
)
from pcm_plugin.formats.images.suffixes import image_formats

_MAX_ASPECT = 100
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


def convert_to_rgb(image: Image.Image) -> Image.Image:
    """Decode an image to upright 8-bit RGB.

    Args:
        image: Any mode, loaded or not. Only its current frame is used.

    Raises:
        Exception: Whatever a decoder raises.
    """
    rawmode = prepare_tiles(image)
    data = _content(image) if is_16_bit_color(rawmode) else None
    _load(image)
    if 0 in image.size:
        raise UserError(f"it has no pixels, its size is {image.width} x {image.height}")
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
    elif image.format in ("PPM", "JPEG2000"):
        depth = 16  # Pillow has scaled by the maximum or depth that the file states.
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
        raise UserError("16-bit planar TIFF with dark colors: save it with 8 bits per channel")
    with Image.open(io.BytesIO(data), formats=image_formats()) as again:
        prepare_tiles(again)
        if rawmode == GRAY_ALPHA:
            split_bytes(again)
        else:
            swap_byte_order(again)
        _load(again)
        low = np.asarray(again)
    if rawmode == GRAY_ALPHA:
        high, low = low[..., ::2], low[..., 1::2]
    return Image.fromarray(channels_to_8_bits(high, low, transparent))


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
