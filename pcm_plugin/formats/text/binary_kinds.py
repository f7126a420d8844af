"""Recognize files that are not text by their first bytes, with advice."""

import re
import zipfile
from pathlib import Path

_CSV = 'save it as "CSV UTF-8" there, or use pandas: {}.to_csv("captions.csv", index=False)'
_JSONL = 'convert it with pandas: {}.to_json("captions.jsonl", orient="records", lines=True)'
_KINDS = [
    (b"BZh", "bzip2 data", "unpack it with bunzip2 (gzip is read as it is)"),
    (b"\xfd7zXZ\x00", "xz data", "unpack it with unxz (gzip is read as it is)"),
    (b"\x5d\x00\x00", "lzma data", "unpack it with unlzma (gzip is read as it is)"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data", "unpack it with unzstd (gzip is read as it is)"),
    (b"\x04\x22\x4d\x18", "LZ4 data", "unpack it with unlz4 (gzip is read as it is)"),
    (b"\x1f\x9d", "compress data", "unpack it with uncompress (gzip is read as it is)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it and pass a caption file of it"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it and pass a caption file of it"),
    (b"PAR1", "a Parquet file", _JSONL.format("read_parquet(FILE)")),
    (b"ARROW1\x00", "an Arrow (Feather) file", _JSONL.format("read_feather(FILE)")),
    (b"FEA1", "a Feather file", _JSONL.format("read_feather(FILE)")),
    (b"Obj\x01", "an Avro file", "export it as JSONL"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "export its captions as JSONL or text"),
    (b"SQLite format 3\x00", "an SQLite database", "export the table with captions as CSV"),
    (b"\x93NUMPY", "a NumPy array", "write its captions as text, one per line"),
    (b"%PDF-", "a PDF document", "copy its captions into a text file, one per line"),
    (b"{\\rtf", "an RTF document", "save it as plain text in UTF-8"),
    (b"\xff\xd8\xff", "a JPEG image", "pass the file with its captions"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image", "pass the file with its captions"),
    (b"GIF8", "a GIF image", "pass the file with its captions"),
    (b"\x7fELF", "a program", "pass a caption file"),
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "an old Office document (.xls, .doc)",
        _CSV.format("read_excel(FILE)"),
    ),
    (
        b"version https://git-lfs.github.com/",
        "a Git LFS pointer, not the file itself",
        "run git lfs pull in its repository",
    ),
]
_PICKLE = re.compile(rb"\x80[\x02-\x05]|[(\]}]lp\d|\(dp\d|ccopy_reg\n", re.DOTALL)
_MARKUP = re.compile(rb"\s*<(?:!doctype\s+html|html|head|body|\?xml|svg)\b", re.IGNORECASE)


def describe_binary(head: bytes, path: Path) -> tuple[str, str] | None:
    """Return what a file is that cannot hold captions as text, and what to do with it.

    Args:
        head: Its first bytes, unpacked if it is compressed with gzip.
        path: The file.

    Returns:
        A noun phrase and an instruction, or None if the file may be text.
    """
    for magic, kind, advice in _KINDS:
        if head.startswith(magic):
            return kind, advice
    if head.startswith(b"\x1f\x8b"):
        return "gzip data within gzip data", "unpack it once with gunzip"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return _describe_zip(path)
    if head[257:262] == b"ustar":
        return "a tar archive", "unpack it with tar -xf and pass a caption file of it"
    if head[4:12] in (b"ftypheic", b"ftypavif", b"ftypmp42", b"ftypisom"):
        return "an image or a video", "pass the file with its captions"
    if _PICKLE.match(head):
        return (
            "a Python pickle, which may execute code when it is loaded",
            "load it where you trust it, and write its captions as JSON",
        )
    if _MARKUP.match(head):
        return (
            "an HTML or XML document (perhaps the error page of a download)",
            "open it in a browser to see which",
        )
    return None


def _describe_zip(path: Path) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            mimetype = archive.read("mimetype") if "mimetype" in names else b""
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError):
        return "a zip archive, which is damaged or compressed twice", "unpack it with unzip"
    if any(name.startswith("xl/") for name in names):
        return "an Excel workbook", _CSV.format("read_excel(FILE)")
    if b"opendocument.spreadsheet" in mimetype:
        return "an OpenDocument spreadsheet", _CSV.format('read_excel(FILE, engine="odf")')
    if any(name.startswith(("word/", "ppt/")) for name in names) or b"opendocument" in mimetype:
        return "an Office document", "save it as plain text in UTF-8, one caption per line"
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return "a PyTorch checkpoint", "pass a caption file"
    if names and all(name.endswith(".npy") for name in names):
        return "NumPy arrays (.npz)", "write the captions as text, one per line"
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"a zip archive with {shown or 'no files'}", "unpack it and pass a caption file of it"
