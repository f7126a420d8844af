"""Corrected captions: a JSONL file that caption readers accept, and a folder with the images.

A line is ``{"caption", "file_name", "generated", "previous", "uploaded_as"}``: the caption, the
image in the folder, the caption that the captioner generated, earlier corrections of the image from
the first to the last, and the image's name at upload.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pcm_plugin.errors import UserError
from pcm_plugin.formats.atomic_io import write_bytes
from pcm_plugin.formats.captions.record import is_missing
from pcm_plugin.formats.cleaning import clean_text
from pcm_plugin.formats.images.image_io import read_header
from pcm_plugin.formats.images.suffixes import suffix_of_format
from pcm_plugin.formats.locks import file_lock
from pcm_plugin.formats.records import write_records

_MAX_CHARS = 1000  # as in caption files
_HASH_DIGITS = 16


class SavedCorrection(NamedTuple):
    """A correction in the file.

    Attributes:
        file_name: Name of the image in the folder.
        caption: The caption as it was written.
        replaced: Another caption that the image had in the file before; None if it had none.
    """

    file_name: str
    caption: str
    replaced: str | None


class CorrectionFile:
    """File of corrected captions, to which several processes may add at the same time.

    Each image has one line, with its last correction; earlier ones are kept under ``previous``.
    Images are recognized by their content, and their bytes are copied without decoding them.

    Args:
        path: The file, ``NAME.jsonl``. Images are copied to the folder ``NAME`` next to it.

    Raises:
        UserError: If the name has another suffix, a folder or file is in the way, or an existing
            file has other content.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix != ".jsonl":
            raise UserError(f"the name of a file of corrections must end in .jsonl, got {path}")
        if path.is_dir():
            raise UserError(f"a file of corrections must be a file name, got the folder {path}")
        self.path = path
        self.folder = path.with_suffix("")
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(
                f"images of {path} are copied to the folder {self.folder}, but that is a file: "
                "choose another name"
            )
        self._read()

    def save(self, data: bytes, caption: str, generated: str, uploaded_as: str) -> SavedCorrection:
        """Copy the image and write its caption.

        Args:
            data: Content of the image file.
            caption: The corrected caption. Markup, invisible characters and line breaks are
                removed, as from every caption that is read.
            generated: The caption that the captioner generated.
            uploaded_as: Name of the image for the user.

        Raises:
            OSError: If a file cannot be written.
            UserError: If the caption is empty or longer than 1,000 characters, or ``data`` is not
                an image.
        """
        caption = _checked(caption)
        suffix = suffix_of_format(read_header(data).format)
        name = f"{hashlib.sha256(data).hexdigest()[:_HASH_DIGITS]}.{suffix}"
        self.folder.mkdir(parents=True, exist_ok=True)
        with file_lock(self.path.with_name(f".{self.path.name}.lock")):
            rows = self._read()
            if not (self.folder / name).exists():
                write_bytes(self.folder / name, data)
            old = rows.get(name)
            replaced = None
            previous: list[str] = []
            if old is not None:
                previous = [*old.get("previous", ())]
                if old["caption"] != caption:
                    replaced = old["caption"]
                    previous.append(replaced)
            rows[name] = {
                "caption": caption,
                "file_name": name,
                "generated": generated,
                "previous": previous,
                "uploaded_as": uploaded_as,
            }
            write_records(self.path, rows.values())
        return SavedCorrection(name, caption, replaced)

    def _read(self) -> dict[str, Mapping[str, Any]]:
        """Return the lines by file name, in order."""
        rows: dict[str, Mapping[str, Any]] = {}
        if not self.path.exists():
            return rows
        lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                name, caption, previous = row["file_name"], row["caption"], row["previous"]
                texts = [name, caption, *previous]
            except (ValueError, KeyError, TypeError):
                texts = [None]
            if not all(isinstance(text, str) for text in texts) or name in rows:
                raise UserError(
                    f"{self.path}:{number} was not written by `pcm webui --corrections`: pass the "
                    "name of a new file"
                )
            rows[name] = row
        return rows


def _checked(caption: str) -> str:
    text = clean_text(caption)
    if is_missing(text):
        raise UserError(f"a corrected caption must be a text, got {caption!r}")
    if len(text) > _MAX_CHARS:
        raise UserError(
            f"a corrected caption must have at most {_MAX_CHARS:,} characters, got {len(text):,}"
        )
    return text
