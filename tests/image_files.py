"""PNG and TIFF files of any bit depth, including those that Pillow cannot write."""

import struct
import zlib

import numpy as np


def png(pixels: np.ndarray, color: int, depth: int = 8, before: bytes = b"") -> bytes:
    """Encode a PNG file.

    Args:
        pixels: (H, bytes per row) uint8, or (H, W[, C]) uint16 for 16 bits per value.
        color: PNG's color type: 0 gray, 2 RGB, 3 palette, 4 gray with alpha, 6 RGBA.
        depth: Bits per value.
        before: Encoded chunks to insert before the pixels.
    """
    height, width = pixels.shape[:2]
    if depth < 8:
        width = width * 8 // depth
    elif depth == 8:
        width //= {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    rows = pixels.astype(">u2" if depth == 16 else np.uint8).reshape(height, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + before
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


def chunk(kind: bytes, data: bytes) -> bytes:
    """Encode a chunk of a PNG file."""
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def tiff(
    pixels: np.ndarray,
    order: str = "<",
    deflate: bool = False,
    planar: bool = False,
    tags: dict[int, int | tuple[int, ...]] | None = None,
) -> bytes:
    """Encode a TIFF file.

    Args:
        pixels: (H, W) or (H, W, C), stored with their dtype.
        order: Byte order, ``'<'`` or ``'>'``.
        deflate: Whether the pixels are compressed.
        planar: Whether the channels are stored one after the other.
        tags: Additional tags, or replacements for the default ones.
    """
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    parts = [pixels[..., c] for c in range(channels)] if planar and channels > 1 else [pixels]
    strips = [part.astype(pixels.dtype.newbyteorder(order)).tobytes() for part in parts]
    if deflate:
        strips = [zlib.compress(strip) for strip in strips]
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    lengths = [len(strip) for strip in strips]
    offsets = [8 + sum(lengths[:i]) for i in range(len(strips))]
    values: dict[int, int | tuple[int, ...]] = {
        256: width,
        257: height,
        258: (pixels.dtype.itemsize * 8,) * channels,
        259: 8 if deflate else 1,
        262: 2 if channels >= 3 else 1,
        273: tuple(offsets),
        277: channels,
        278: height,
        279: tuple(lengths),
        284: 2 if planar else 1,
        339: (kind,) * channels,
    }
    if channels in (2, 4):
        values[338] = 2
    values |= tags or {}
    start = 8 + sum(lengths)
    extra_at = start + 2 + 12 * len(values) + 4
    entries, extra = b"", b""
    for tag, value in sorted(values.items()):
        items = value if isinstance(value, tuple) else (value,)
        data = struct.pack(f"{order}{len(items)}I", *items)
        if len(items) > 1:
            entries += struct.pack(f"{order}HHII", tag, 4, len(items), extra_at + len(extra))
            extra += data
        else:
            entries += struct.pack(f"{order}HHI", tag, 4, 1) + data
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, start)
    directory = struct.pack(f"{order}H", len(values)) + entries + struct.pack(f"{order}I", 0)
    return head + b"".join(strips) + directory + extra
