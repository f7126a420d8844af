"""Image formats that are read, and their file name suffixes."""

import functools

from PIL import Image

# Pillow only recognizes these or runs another program (PostScript's interpreter) to decode them.
_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}


# Formats whose name is not their suffix.
_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif", "JPEG2000": "jp2"}


def suffix_of_format(name: str) -> str:
    """Return the file name suffix of an image format, as Pillow names it, without the dot."""
    return _SUFFIXES.get(name, name.lower())


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
