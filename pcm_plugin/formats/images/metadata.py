"""Metadata of image files: detect the format, and remove what is broken."""

import struct
import zlib
from collections.abc import Iterator

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf"}
_JPEG_KEPT = (0xE0, 0xE1, 0xEE)  # JFIF, EXIF, Adobe's color transform
_CONTENTS = (
    (b"%PDF", "a PDF document: export its pages as PNG"),
    (b"%!PS", "PostScript: convert it to PNG"),
    (b"\xc5\xd0\xd3\xc6", "PostScript: convert it to PNG"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL: convert it to PNG or JPEG"),
    (b"\xff\x0a", "JPEG XL: convert it to PNG or JPEG"),
    (b"version https://git-lfs", "a pointer of Git LFS: run git lfs pull"),
    (b"\x1f\x8b", "gzip: unpack it"),
    (b"PK\x03\x04", "a zip archive: unpack it"),
    (b"II*\x00", "TIFF of a kind that is not supported: save it with 8 bits per channel"),
    (b"MM\x00*", "TIFF of a kind that is not supported: save it with 8 bits per channel"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


def describe_content(data: bytes) -> str:
    """Return what a file that is not an image contains, as the end of a sentence; may be empty."""
    if not data:
        return ": it is empty"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return ": it is HEIC: convert it to JPEG or PNG"
    for start, content in _CONTENTS:
        if data.startswith(start):
            return f": it is {content}"
    text = data[:512].lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return ": it is a web page, so the download failed"
    if text.startswith(b"<svg") or (text.startswith(b"<?xml") and b"<svg" in text):
        return ": it is SVG: convert it to PNG"
    return ""


def strip_metadata(data: bytes) -> bytes | None:
    """Return an image file without metadata, except for what changes how it looks.

    Args:
        data: Content of a file.

    Returns:
        PNG without text chunks, color profiles and unknown chunks; JPEG without application
        segments other than JFIF, EXIF and Adobe's; AVIF without EXIF. None for other formats.
    """
    if data.startswith(_PNG):
        chunks = ((kind, chunk) for kind, chunk in _png_chunks(data) if kind in _PNG_KEPT)
        return _PNG + b"".join(_renew_checksum(c) if k == b"eXIf" else c for k, c in chunks)
    if data.startswith(b"\xff\xd8\xff"):
        return _strip_jpeg(data)
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        # An item of an unknown type is ignored.
        return data.replace(b"Exif", b"Skip", 1)
    return None


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(_PNG)
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        yield kind, data[place : place + 12 + length]
        place += 12 + length


def _renew_checksum(chunk: bytes) -> bytes:
    return chunk[:-4] + struct.pack(">I", zlib.crc32(chunk[4:-4]))


def _strip_jpeg(data: bytes) -> bytes:
    kept, place = [data[:2]], 2
    while place + 4 <= len(data):
        marker, length = struct.unpack_from(">HH", data, place)
        if marker >> 8 != 0xFF or marker == 0xFFDA:
            break
        code, end = marker & 0xFF, place + 2 + length
        if not (0xE0 <= code <= 0xEF or code == 0xFE) or code in _JPEG_KEPT:
            kept.append(data[place:end])
        place = end
    return b"".join([*kept, data[place:]])
