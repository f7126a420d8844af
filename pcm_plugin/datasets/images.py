"""Image files as people see them."""

import os
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError


def read_image(file: str | os.PathLike | BinaryIO) -> Image.Image:
    """Read an image whole, its sides as its EXIF record says (cameras turn pictures by it alone).

    Args:
        file: A file that Pillow reads, or one that is open.

    Returns:
        The image, RGB.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no image, is cut, or is too large to be one.
    """
    name = str(file) if isinstance(file, str | os.PathLike) else "it"
    try:
        with Image.open(file) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError:
        raise FileNotFoundError(f"no image at {name}") from None
    except IsADirectoryError:
        raise ValueError(f"{name} is a folder") from None
    except UnidentifiedImageError:
        raise ValueError(f"{name} is no image that Pillow reads") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} cannot be read: {error}") from error
