"""Pillow's raw modes: how the values of an image file become those of its channels."""

import re
import sys
from typing import Any

from PIL import Image

_BITS, _PLANAR, _SAMPLE_FORMAT = 258, 284, 339
# libtiff returns values in native byte order, which Pillow overlooks for these.
_NATIVE = {
    **{"I;16BS": "I;16NS", "I;16S": "I;16NS", "I;32BS": "I;32NS", "I;32S": "I;32NS"},
    **{"F;32BF": "F;32NF", "F;32F": "F;32NF"},
}
GRAY_ALPHA = "LA;16B"
"""Raw mode of 16-bit gray with alpha in PNG, which Pillow decodes to RGBA."""
PLANAR = "planar;16"
"""Raw mode of compressed 16-bit channels that are stored one after the other; not changeable."""
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def prepare_tiles(image: Image.Image) -> str:
    """Correct the raw modes of a TIFF file that Pillow gets wrong.

    Args:
        image: An image, usually not loaded yet.

    Returns:
        The raw mode of the first tile; empty for an image that is loaded already.
    """
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ""
    tags: Any = getattr(image, "tag_v2", None)
    if image.format == "TIFF" and tags is not None:
        codec, mode = tiles[0][0], _mode(tiles[0])
        planar = tags.get(_PLANAR) == 2 and 16 in tags.get(_BITS, ())
        if codec == "libtiff":
            _replace(image, lambda mode: _NATIVE.get(mode, mode))
            if planar:
                return PLANAR
        elif planar and ";" not in mode:
            order = ";16L" if tags.prefix == b"II" else ";16B"
            _replace(image, lambda mode: mode + order)
        if mode == "L" and tags.get(_SAMPLE_FORMAT) in ((2,), 2):
            return "L;S"
    return _mode(image.tile[0])  # type: ignore[attr-defined]


def is_16_bit_color(rawmode: str) -> bool:
    """Return whether a raw mode has 16 bits per channel, of which Pillow keeps 8."""
    return rawmode == GRAY_ALPHA or re.fullmatch(r"(RGB[AX]?|R);16[BLN]", rawmode) is not None


def swap_byte_order(image: Image.Image) -> None:
    """Make an image of 16-bit colors that is not loaded yet decode the low bytes."""
    _replace(image, lambda mode: mode[:-1] + _OTHER_ORDER[mode[-1]])


def split_bytes(image: Any) -> None:
    """Make an image of raw mode LA;16B decode high and low bytes: gray, gray, alpha, alpha."""
    _replace(image, lambda mode: "RGBA")


def _mode(tile: Any) -> str:
    args = tile[3]
    args = args[0] if isinstance(args, tuple) and args else args
    return args if isinstance(args, str) else ""


def _replace(image: Any, change: Any) -> None:
    image.tile = [
        tile._replace(
            args=(change(_mode(tile)), *tile.args[1:])
            if isinstance(tile.args, tuple)
            else change(tile.args)
        )
        for tile in image.tile
    ]
