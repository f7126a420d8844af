"""List the image files in a folder, and the files that were skipped."""

import errno
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pcm_plugin.formats.images.suffixes import image_suffixes

_SYSTEM_NAMES = {
    *("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini"),
}
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
}
_UNSUPPORTED = {
    *(".heic", ".heif", ".hif", ".jxl", ".svg", ".pdf", ".eps", ".ps", ".psb", ".xcf"),
    *(".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw"),
}
_MAX_EXAMPLES = 5
_MAX_SHOWN = 8
_MAX_PROBES = 20
_DANGLING = (errno.ENOENT, errno.ELOOP, errno.EACCES, errno.ENOTDIR)

HIDDEN = "hidden or of the operating system"
NAMED_LIKE_IMAGE = "folder with the name of an image"
VISITED = "link to a folder that is searched already"
BROKEN_LINK = "link to a file that does not exist"
SPECIAL = "not a regular file"
NOT_READABLE = "folder without read permission"
UNDECODABLE = "name is not valid UTF-8 (rename it)"
UNSUPPORTED = "unsupported image format (convert it to JPEG or PNG)"
MISNAMED = "content of an image, but no image suffix (rename it)"
OTHER = "no image suffix"


@dataclass
class Skipped:
    """Files that were skipped for one reason.

    Attributes:
        count: Number of files.
        examples: The first files, relative to the folder.
        suffixes: Number of files by suffix.
    """

    count: int = 0
    examples: list[str] = field(default_factory=list)
    suffixes: Counter[str] = field(default_factory=Counter)


@dataclass
class ImageFolderListing:
    """Result of :func:`list_images`.

    Attributes:
        files: Paths relative to the folder, with ``/``, sorted by their parts.
        undecodable: Image files with a name that is not valid UTF-8, likewise.
        skipped: All other entries by the reason why they were skipped.
    """

    files: list[str] = field(default_factory=list)
    undecodable: list[str] = field(default_factory=list)
    skipped: dict[str, Skipped] = field(default_factory=dict)

    def skip(self, reason: str, name: str) -> None:
        """Count an entry that was skipped."""
        entry = self.skipped.setdefault(reason, Skipped())
        entry.count += 1
        entry.suffixes[PurePosixPath(name).suffix.lower()] += 1
        if len(entry.examples) < _MAX_EXAMPLES:
            entry.examples.append(name)

    def describe_skipped(self) -> str:
        """Return how many entries were skipped and why, in one line; empty if there are none."""
        parts = [
            f"{entry.count:,} {reason}: {_describe(reason, entry)}"
            for reason, entry in sorted(self.skipped.items())
        ]
        total = sum(entry.count for entry in self.skipped.values())
        what = "entry" if total == 1 else "entries"
        return f"skipped {total:,} {what}: {'; '.join(parts)}" if parts else ""


def list_images(folder: str | os.PathLike) -> ImageFolderListing:
    """Find the images below a folder.

    Images are files with a suffix of a format that Pillow decodes. Links are followed, but each
    folder is searched once, real folders first, so that cycles of links end. Hidden files and
    folders, those of operating systems and notebooks (``.ipynb_checkpoints``, ``__MACOSX``,
    ``Thumbs.db``), and folders with the name of an image (``cat.jpg/``) are skipped.

    Args:
        folder: The folder.

    Raises:
        OSError: If the folder cannot be read.
    """
    listing = ImageFolderListing()
    probe = _Probe()
    for path, name in _walk(Path(folder), listing):
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in image_suffixes():
            if is_utf8(name):
                listing.files.append(name)
            else:
                listing.undecodable.append(name)
                listing.skip(UNDECODABLE, name)
        elif suffix in _UNSUPPORTED:
            listing.skip(UNSUPPORTED, name)
        else:
            listing.skip(MISNAMED if probe(path, suffix) else OTHER, name)
    listing.files.sort(key=lambda name: name.split("/"))
    listing.undecodable.sort(key=lambda name: name.split("/"))
    for entry in listing.skipped.values():
        entry.examples.sort()
    return listing


def find_name(folder: Path, name: str) -> str:
    """Return the name in a folder of a file that a caption file names.

    Unicode has two ways to write names with accents. macOS decomposes them, most other systems do
    not, and a folder that was copied keeps its names.

    Args:
        folder: The folder.
        name: The name of a file in it.

    Returns:
        ``name``, or an equivalent Unicode name if there is no such file.
    """
    if not name.isascii() and not (folder / name).exists():
        for normal_form in ("NFC", "NFD"):
            other = unicodedata.normalize(normal_form, name)
            if other != name and (folder / other).exists():
                return other
    return name


def is_utf8(name: str) -> bool:
    """Return whether a file name is valid UTF-8, so that JSON can hold it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    """Return a name for messages, with control characters and invalid bytes escaped."""
    try:
        raw = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that does not stand for a byte
        raw = name.encode("utf-8", "backslashreplace")
    text = raw.decode("utf-8", "backslashreplace")
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c
        for c in text
    )


def _walk(root: Path, listing: ImageFolderListing) -> Iterator[tuple[str, str]]:
    """Yield path and relative name of each regular file; folders behind links come last."""
    visited = {_identity(os.stat(root))}
    folders: list[tuple[str, str]] = [(str(root), "")]
    links: list[tuple[str, str]] = []
    while folders or links:
        is_link = not folders
        path, prefix = links.pop(0) if is_link else folders.pop()
        if is_link:
            identity = _identity(os.stat(path))
            if identity in visited:
                listing.skip(VISITED, prefix.rstrip("/"))
                continue
            visited.add(identity)
        try:
            with os.scandir(path) as iterator:
                entries = sorted(iterator, key=lambda entry: entry.name)
        except PermissionError:
            if not prefix:
                raise
            listing.skip(NOT_READABLE, prefix)
            continue
        for entry in entries:
            name = prefix + entry.name
            if entry.name.startswith(".") or entry.name.lower() in _SYSTEM_NAMES:
                listing.skip(HIDDEN, name)
                continue
            try:
                status = entry.stat()
            except OSError as error:
                if error.errno not in _DANGLING:
                    raise
                listing.skip(BROKEN_LINK, name)
                continue
            if stat.S_ISREG(status.st_mode):
                yield entry.path, name
            elif not stat.S_ISDIR(status.st_mode):
                listing.skip(SPECIAL, name)
            elif PurePosixPath(name).suffix.lower() in image_suffixes():
                listing.skip(NAMED_LIKE_IMAGE, name)
            elif entry.is_symlink():
                links.append((entry.path, f"{name}/"))
            elif _identity(status) in visited:
                listing.skip(VISITED, name)
            else:
                visited.add(_identity(status))
                folders.append((entry.path, f"{name}/"))


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _describe(reason: str, entry: Skipped) -> str:
    if reason in (OTHER, UNSUPPORTED):
        counts = sorted(entry.suffixes.items(), key=lambda item: (-item[1], item[0]))
        shown = [f"{printable(suffix) or 'without'} {count:,}" for suffix, count in counts]
    else:
        shown = [printable(name) for name in entry.examples]
        shown += ["..."] if entry.count > len(entry.examples) else []
    return ", ".join(shown[:_MAX_SHOWN] + (["..."] if len(shown) > _MAX_SHOWN else []))


class _Probe:
    """Whether a file has the content of an image; only the first files of a suffix are opened."""

    def __init__(self) -> None:
        self._tried: Counter[str] = Counter()
        self._found: set[str] = set()

    def __call__(self, path: str, suffix: str) -> bool:
        if self._tried[suffix] >= _MAX_PROBES and suffix not in self._found:
            return False
        self._tried[suffix] += 1
        try:
            with open(path, "rb") as file:
                start = file.read(12)
        except PermissionError:
            return False
        if start.startswith(tuple(_SIGNATURES)) or (start[:4], start[8:]) == (b"RIFF", b"WEBP"):
            self._found.add(suffix)
            return True
        return False
