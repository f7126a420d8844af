"""Rephrased captions: a JSONL file of further prompts for the images of captions.

A line is ``{"id": ..., "texts": [...]}``: the id of a caption and other texts for the same image.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.captions.lines import read_lines
from pcm_plugin.formats.captions.record import Caption, Record, find_problem, shorten
from pcm_plugin.formats.cleaning import clean_text
from pcm_plugin.formats.image_ids import normalize_id
from pcm_plugin.formats.text.errors import FileFormatError

MAX_CHARS = 1000
"""Maximum number of characters of a text, as of a caption."""

_EXPECTED = '{"id": CAPTION_ID, "texts": ["another text", ...]}'


class _Line(NamedTuple):
    number: int
    texts: tuple[str, ...]


class Rephrasings:
    """The texts of a file of rephrased captions, by the id of the caption.

    Texts go through :func:`~pcm_plugin.formats.cleaning.clean_text`, as captions do.

    Args:
        path: JSONL file; blank lines are skipped.
        images_per_caption: Number of images of each caption: one is generated from the caption, so
            a caption has at most one text fewer.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If a line is not as described above, has an id that occurs before, or has an
            empty, repeated or too long text, or too many texts. The message starts with file and
            line.
    """

    def __init__(self, path: str | os.PathLike, images_per_caption: int) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise MissingFileError(
                f"no file of rephrased captions at {self.path}: write it with `pcm rephrase`"
            )
        self._lines: dict[str, _Line] = {}
        with open(self.path, "rb") as file:
            for number, line in read_lines(file):
                if isinstance(line, FileFormatError):
                    raise self._error(number, f"{line.problem}: write the file as UTF-8")
                if line.strip():
                    self._add(number, line, images_per_caption)

    def check(self, captions: Iterable[Caption]) -> None:
        """Check that the file has texts for all captions of a caption file and for no others.

        Raises:
            UserError: If a caption is missing, an id is unknown, or a text equals the caption.
        """
        unknown = dict(self._lines)
        for caption in captions:
            line = self._find(caption)
            if caption.text in line.texts:
                raise self._error(
                    line.number,
                    f"the text {shorten(caption.text)} is the caption itself: remove it",
                )
            unknown.pop(caption.id, None)
        for caption_id, line in unknown.items():
            raise self._error(
                line.number,
                f"no caption has the id {caption_id!r}: remove the line, or pass the caption file "
                "that the texts were made for, with the same --split",
            )

    def prompts(self, caption: Caption) -> tuple[str, ...]:
        """Return the caption and its other texts.

        Raises:
            UserError: If the caption is missing.
        """
        return caption.text, *self._find(caption).texts

    def _find(self, caption: Caption) -> _Line:
        if caption.id not in self._lines:
            raise UserError(
                f"{self.path} has no line for the caption {caption.id!r} "
                f"({shorten(caption.text)}): add one, with an empty list if it has no other texts"
            )
        return self._lines[caption.id]

    def _add(self, number: int, line: str, images_per_caption: int) -> None:
        try:
            row: Any = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or row.keys() != {"id", "texts"}:
            raise self._error(number, f"a line must be {_EXPECTED}, got {shorten(line)}")
        try:
            is_scalar = isinstance(row["id"], str | int | float)
            caption_id = normalize_id(row["id"] if is_scalar else None)
        except UserError:
            raise self._error(
                number, f"an id must be a number or a text, got {row['id']!r}"
            ) from None
        if caption_id in self._lines:
            raise self._error(
                number,
                f"the id {caption_id!r} is that of line {self._lines[caption_id].number} too: "
                "list all texts of a caption in one line",
            )
        texts = row["texts"]
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise self._error(number, f"texts must be a list of texts, got {shorten(repr(texts))}")
        cleaned: list[str] = []
        for text in texts:
            clean = clean_text(text)
            if not clean:
                raise self._error(number, f"a text must not be empty, got {text!r}: remove it")
            if problem := find_problem(Record(str(number), id=caption_id), clean, MAX_CHARS):
                raise self._error(number, f"{problem}: remove the text {shorten(text)}")
            if clean in cleaned:
                raise self._error(number, f"the text {shorten(text)} is repeated: remove it")
            cleaned.append(clean)
        if len(cleaned) >= images_per_caption:
            raise self._error(
                number,
                f"{len(cleaned)} texts and the caption itself need images_per_caption of at least "
                f"{len(cleaned) + 1}, got {images_per_caption}: raise it, or remove texts",
            )
        self._lines[caption_id] = _Line(number, tuple(cleaned))

    def _error(self, number: int, message: str) -> UserError:
        return UserError(f"{self.path}:{number}: {message}")
