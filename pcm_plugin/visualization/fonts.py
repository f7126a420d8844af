"""Fonts of drawings."""

from functools import lru_cache
from typing import TypeAlias

from PIL import ImageFont

Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont


@lru_cache(maxsize=32)
def load_font(file: str | None, size: int) -> Font:
    """Load a font.

    Args:
        file: TrueType file, or None for Pillow's default font, which lacks many scripts.
        size: Size in pixels.
    """
    return ImageFont.truetype(file, size) if file else ImageFont.load_default(size)
