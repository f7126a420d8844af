"""Image files as people see them."""

import os
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


def as_rgb(image: Image.Image) -> Image.Image:
    """An image as people see it: upright, RGB, 16 bits of grey brought to 8."""
    if image.mode.startswith("I"):
        grey = np.asarray(image, dtype=np.float32)
        # Pillow's own conversion cuts whatever is above 255.
        scale = 256 if image.mode != "I" or grey.max(initial=0) > 255 else 1
        turned = Image.fromarray((grey / scale).clip(0, 255).astype(np.uint8))
        turned.info = image.info
        image = turned
    return ImageOps.exif_transpose(image).convert("RGB")


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
            return as_rgb(image)
    except FileNotFoundError:
        raise FileNotFoundError(f"no image at {name}") from None
    except IsADirectoryError:
        raise ValueError(f"{name} is a folder") from None
    except UnidentifiedImageError:
        raise ValueError(f"{name} is no image that Pillow reads") from None
    except Exception as error:  # decoders of broken files raise whatever they meet
        raise ValueError(f"{name} cannot be read: {error}") from error
