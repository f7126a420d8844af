"""Captions in: files of many forms, told apart by their content."""

import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pcm_plugin.datasets.cleaning import clean_text
from pcm_plugin.datasets.durable import replacing
from pcm_plugin.synthesis.caption_forms import READERS, Record, recognise

_SHOWN = 20
_TRAINING = ("train", "restval")

ALL_SPLITS = "all"
"""Value of ``split`` for the captions of all splits."""


class Caption(NamedTuple):
    """A caption and whose it is.

    Attributes:
        id: The caption's id; the seed of its synthetic image depends on it.
        image_id: Id of the image that was described; the caption's own if the file names none.
        text: The sentence as :func:`~pcm_plugin.datasets.cleaning.clean_text` returns it.
        file_name: File of that image, None if the file names none.
    """

    id: str
    image_id: str
    text: str
    file_name: str | None = None


@dataclass
class CaptionReport:
    """What was met while a caption file was read.

    Attributes:
        path: The file.
        form: Its form, e.g. ``'Flickr token file'``.
        captions: How many were read.
        blank: How many had no character but white space.
        duplicates: How many had the text of one before; they are read all the same.
        repeated_ids: How many had the id of one before.
        bad: How many could not be read.
        other_splits: How many belong to splits that were not asked for.
        examples: The first messages of those that could not be read.
    """

    path: Path
    form: str = ""
    captions: int = 0
    blank: int = 0
    duplicates: int = 0
    repeated_ids: int = 0
    bad: int = 0
    other_splits: int = 0
    examples: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """A line of counts, and a line for each message."""
        counts = [f"{self.captions:,} captions"]
        remarks = {
            "of other splits": self.other_splits,
            "blank": self.blank,
            "duplicates": self.duplicates,
            "with an id used before": self.repeated_ids,
            "bad, passed over": self.bad,
        }
        counts += [f"{count:,} {remark}" for remark, count in remarks.items() if count]
        rest = self.bad - len(self.examples)
        more = [f"  and {rest:,} more"] if rest else []
        return "\n".join(
            [
                f"{self.path} ({self.form}): {', '.join(counts)}",
                *(f"  {example}" for example in self.examples),
                *more,
            ]
        )


@dataclass(frozen=True)
class CaptionFile:
    """A file of captions, read anew each time it is iterated over, one caption at a time.

    Six forms are recognised by content, whatever the file's name:

    - COCO captions JSON; ids are those of the annotations;
    - Karpathy's JSON (``dataset_coco.json`` and those of Flickr8k and Flickr30k);
    - Flickr token files: ``FILE#NUMBER``, a tab, the caption;
    - tables (CSV, TSV) whose first line has ``column``;
    - JSONL: a JSON object a line, with ``column`` and optionally ``id``, ``image_id``,
      ``file_name``, ``split``; an id that is missing is the number of the line;
    - plain text, a caption a line; ids are the numbers of the lines, from 1.

    Texts go through :func:`~pcm_plugin.datasets.cleaning.clean_text`. Blank captions are passed
    over.

    Args:
        path: A UTF-8 file.
        column: What holds the captions in a table or JSONL. Defaults to ``'caption'``.
        split: ``'train'``, ``'val'`` or ``'test'``, for files that know splits: by default such a
            file gives its training split alone (Karpathy's ``restval`` is part of it), and a file
            that knows none gives all. ``'all'`` gives every caption of any file.
        skip_bad: Whether to pass over what cannot be read, instead of an error. Defaults to False.
        max_chars: A longer caption counts as bad. Defaults to 1,000.

    Raises:
        FileNotFoundError: If there is no such file.
    """

    path: Path
    column: str = "caption"
    split: str | None = None
    skip_bad: bool = False
    max_chars: int = 1000

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        if not self.path.is_file():
            raise FileNotFoundError(f"no caption file at {self.path}")

    @classmethod
    def of(cls, captions: "CaptionFile | str | os.PathLike") -> "CaptionFile":
        """A file as it is, or one with default settings for a path."""
        return captions if isinstance(captions, CaptionFile) else cls(Path(captions))

    def __iter__(self) -> Iterator[Caption]:
        """Read the captions in the order of the file.

        Raises:
            ValueError: At the first caption that cannot be read, unless ``skip_bad``; the message
                starts with file and line number. If the file has another form than it should, or
                no split of that name.
        """
        return self._read(CaptionReport(self.path))

    def form(self) -> str:
        """Which form the file has, e.g. ``'COCO captions JSON'``.

        Raises:
            ValueError: If it has none of the known ones.
        """
        with open(self.path, "rb") as file:
            try:
                return recognise(file, self.column, self.path.name)
            except ValueError as error:
                raise ValueError(f"{self.path}: {error}") from None

    def knows_splits(self) -> bool:
        """Whether the file puts its captions into splits."""
        with open(self.path, "rb") as file:
            first = next(READERS[self.form()](file, self.column), None)
        return first is not None and first.split is not None

    def survey(self) -> CaptionReport:
        """Read the file once from end to end and count.

        Raises:
            ValueError: As reading does; also if there are no captions.
        """
        report = CaptionReport(self.path)
        with _Repeats() as texts, _Repeats() as ids:
            for caption in self._read(report):
                texts.add(caption.text)
                ids.add(caption.id)
            report.duplicates, report.repeated_ids = texts.count(), ids.count()
        if not report.captions:
            raise ValueError(f"no captions in {report}")
        return report

    def _read(self, report: CaptionReport) -> Iterator[Caption]:
        with open(self.path, "rb") as file:
            try:
                report.form = recognise(file, self.column, self.path.name)
                knows_splits = False
                for record in READERS[report.form](file, self.column):
                    knows_splits = knows_splits or record.split is not None
                    if not self._wants(record):
                        report.other_splits += 1
                        continue
                    caption = self._clean(record, report)
                    if caption is not None:
                        report.captions += 1
                        yield caption
            except ValueError as error:
                # What a record says of itself has its place already.
                known = str(error).startswith(f"{self.path}:")
                raise error if known else ValueError(f"{self.path}: {error}") from None
        if self.split not in (None, ALL_SPLITS) and not knows_splits:
            raise ValueError(
                f"{self.path}: split={self.split!r}, but this {report.form} knows no splits"
            )
        if self.split is not None and not report.captions and report.other_splits:
            raise ValueError(f"{self.path}: no caption is of split={self.split!r}")

    def _wants(self, record: Record) -> bool:
        if record.split is None or self.split == ALL_SPLITS:
            return True
        wanted = self.split or "train"
        return record.split in (_TRAINING if wanted == "train" else (wanted,))

    def _clean(self, record: Record, report: CaptionReport) -> Caption | None:
        text = clean_text(record.text or "")
        problem = record.problem
        named = (record.id, record.image_id, record.file_name, text)
        if not all(_is_unicode(str(value)) for value in named):
            problem = "not Unicode: it holds half of a surrogate pair, or bytes of another encoding"
        if len(text) > self.max_chars:
            problem = f"a caption of {len(text):,} characters, more than {self.max_chars:,}"
        if problem:
            number = record.place if record.place.isdigit() else f" {record.place}"
            message = f"{self.path}:{number}: {problem}"
            if not self.skip_bad:
                raise ValueError(f"{message} (--skip-bad passes over such captions)")
            report.bad += 1
            if len(report.examples) < _SHOWN:
                report.examples.append(message)
            return None
        if not text:
            report.blank += 1
            return None
        image_id = record.id if record.image_id is None else record.image_id
        return Caption(str(record.id), str(image_id), text, record.file_name)


def write_jsonl(captions: CaptionFile, path: Path, limit: int | None = None) -> int:
    """Write captions as JSONL, in the form that :class:`CaptionFile` reads, one at a time.

    Args:
        captions: Where they come from.
        path: File to write; its folder is made.
        limit: Write only the first.

    Returns:
        How many were written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with replacing(path) as file:
        for count, caption in enumerate(itertools.islice(captions, limit), start=1):  # noqa: B007
            row = {"id": caption.id, "image_id": caption.image_id, "caption": caption.text}
            if caption.file_name is not None:
                row["file_name"] = caption.file_name
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
    return count


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Repeats:
    """Counts strings that were met before, in a file: memory does not grow with their number."""

    def __enter__(self) -> "_Repeats":
        self._file = tempfile.TemporaryFile()
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()

    def add(self, value: str) -> None:
        self._file.write(hashlib.blake2b(value.encode(), digest_size=8).digest())

    def count(self) -> int:
        if not self._file.tell():
            return 0
        self._file.flush()
        hashes = np.memmap(self._file, dtype=np.uint64, mode="r+")
        hashes.sort()
        return int((hashes[1:] == hashes[:-1]).sum())
