"""Captions of a file, in any of the formats of ``caption_formats``."""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.captions import FORMATS, Format, Record, detect_format
from pcm_plugin.formats.captions.coco_images import check_coco_images
from pcm_plugin.formats.captions.ids import HashColumn, IdTable, RepeatedIds, caption_id
from pcm_plugin.formats.captions.parquet import is_parquet
from pcm_plugin.formats.captions.record import Caption
from pcm_plugin.formats.captions.report import CaptionReport
from pcm_plugin.formats.cleaning import clean_text
from pcm_plugin.formats.image_ids import strip_image_suffix
from pcm_plugin.formats.text.errors import FileFormatError, describe_fixes
from pcm_plugin.formats.text.scripts import is_unspaced
from pcm_plugin.formats.text.text_file import is_clearly_utf8, open_text

_TRAINING = ("train", "restval")

ALL_SPLITS = "all"
"""Value of ``split`` for the captions of all splits."""


@dataclass(frozen=True)
class CaptionFile:
    """Captions of a file, which is read each time they are iterated over, one caption at a time.

    The format is detected by content. Texts go through
    :func:`~pcm_plugin.formats.cleaning.clean_text`; blank captions are left out, and so are those
    that VizWiz marks as rejected or canned.

    No two captions have the same id. A caption without an id has the number of its line or entry.
    Where ids are repeated in a table, JSONL or a JSON list, and all captions with the same id are
    of one image, or no images are named, the ids are those of the images: their captions get
    ``ID#1``, ``ID#2``, ... in the order of the file. Ids that are repeated otherwise are an error.
    The id of an image that is named by its file alone is the file's name without suffix.

    Args:
        path: A text file, compressed with gzip or not, or a Parquet file.
        column: Column or field that holds the captions, in tables, JSONL, JSON lists and Parquet.
            Defaults to ``'caption'``.
        split: ``'train'``, ``'val'`` or ``'test'``, for files that have splits: by default such a
            file gives its training split alone (Karpathy's ``restval`` is part of it), and a file
            without splits gives all. ``'all'`` gives every caption of any file.
        skip_invalid: Whether to leave out what cannot be read, instead of an error. Defaults to False.
        max_chars: A longer caption counts as bad. Defaults to 1,000.
        format: A key of :data:`~pcm_plugin.formats.captions.FORMATS`. Defaults to None:
            detected.
        encoding: Python's name of the encoding. Defaults to None: that of the byte-order mark, or
            UTF-8.
        options: Options of a command that errors name instead of these arguments, by argument, such
            as ``{'skip_invalid': '--skip-invalid'}``. Defaults to None: errors name the arguments.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If ``format`` is unknown.
    """

    path: Path
    column: str = "caption"
    split: str | None = None
    skip_invalid: bool = False
    max_chars: int = 1000
    format: str | None = None
    encoding: str | None = None
    options: Mapping[str, str] | None = field(default=None, repr=False, compare=False)
    _cache: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        if not self.path.is_file():
            raise MissingFileError(f"no caption file at {self.path}")
        if self.format is not None and self.format not in FORMATS:
            raise UserError(f"format must be one of {list(FORMATS)}, got {self.format!r}")

    @classmethod
    def of(cls, captions: "CaptionFile | str | os.PathLike") -> "CaptionFile":
        """Return a caption file as it is, or one with default settings for a path."""
        return captions if isinstance(captions, CaptionFile) else cls(Path(captions))

    def with_path(self, path: str | os.PathLike) -> "CaptionFile":
        """Return another file that is read with the same arguments, except for the split.

        ``format`` and ``encoding`` are passed on if the file needs them: not if its format can be
        detected, or if it has a byte-order mark or is valid UTF-8 beyond ASCII.

        Raises:
            MissingFileError: If there is no such file.
        """
        file = replace(self, path=Path(path), split=None)
        if self.encoding is not None and is_clearly_utf8(path):
            file = replace(file, encoding=None)
        if self.format is not None:
            detected = replace(file, format=None)
            with contextlib.suppress(UserError):
                detected.form()
                return detected
        return file

    def __iter__(self) -> Iterator[Caption]:
        """Read the captions in the order of the file.

        Raises:
            UserError: At the first caption that cannot be read, unless ``skip_invalid``, and at ids
                that are repeated without being those of images; the message starts with file and
                line. If the file has another format than it should, or no split of that name.
                Raised before the first caption is returned.
        """
        repeated = self._scan().repeated
        numbers: Counter[str] = Counter()
        met: set[str] = set()
        for record, text in self._accepted(CaptionReport(self.path)):
            own = caption_id(record)
            image_id = record.image_id or strip_image_suffix(record.file_name or "") or own
            if repeated.of_images:
                numbers[own] += 1
                own = f"{own}#{numbers[own]}"
            elif own in repeated:
                if own in met:
                    continue
                met.add(own)
            yield Caption(own, image_id, text, record.file_name)

    def form(self) -> str:
        """Return the name of the file's format, e.g. ``'COCO captions JSON'``.

        Raises:
            UserError: If it has none of the known ones.
        """
        return self._format().name

    def has_splits(self) -> bool:
        """Whether the file assigns its captions to splits."""
        with self._errors():
            first = next(self._format().read(self.open, self.column), None)
        return first is not None and first.split is not None

    def scan(self) -> CaptionReport:
        """Read the file once from end to end and count.

        Raises:
            UserError: As reading does; also if there are no captions.
        """
        report = self._scan().report
        if not report.captions:
            raise UserError(f"no captions in {report}")
        return report

    def open(self) -> BinaryIO:
        """Open the file: Parquet as it is, everything else as UTF-8.

        See :func:`~pcm_plugin.formats.text.text_file.open_text`.
        """
        if self.format in (None, "parquet") and self.encoding is None and is_parquet(self.path):
            return open(self.path, "rb")
        return open_text(self.path, self.encoding)

    def _format(self) -> Format:
        if self.format is not None:
            return FORMATS[self.format]
        return self._once("format", self._detect_format)

    def _detect_format(self) -> Format:
        with self._errors():
            return FORMATS[detect_format(self.open, self.column, self.path.name)]

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except FileFormatError as error:
            raise UserError(error.describe(self.path, self.options)) from None

    def _once(self, name: str, find: Callable[[], Any]) -> Any:
        """Return the result of ``find``, called again only if the file has changed."""
        status = self.path.stat()
        key = f"{name} {status.st_size} {status.st_mtime_ns}"
        if key not in self._cache:
            self._cache[key] = find()
        return self._cache[key]

    def _scan(self) -> "_Scan":
        """Read the file once, to count and to compare ids."""
        return self._once("scan", self._scan_now)

    def _scan_now(self) -> "_Scan":
        kind = self._format()
        report = CaptionReport(self.path, kind.name)
        with IdTable() as ids, contextlib.closing(HashColumn()) as texts:
            for record, text in self._accepted(report):
                ids.add(record)
                texts.add(text)
                report.captions += 1
                if not (record.image_id or record.file_name):
                    report.without_image += 1
                    report.no_image = report.no_image or record.location
                report.unspaced += is_unspaced(text)
                report.damaged += "\ufffd" in text
            repeated = ids.find_repeated(kind.ids_may_be_images)
            report.duplicates = texts.count_repeats()
        if kind is FORMATS["coco"]:
            with self._errors():
                check_coco_images(self.open)
        report.ids_of_images = repeated.of_images
        if len(repeated.hashes) and not repeated.of_images:
            self._note_repeated(repeated, report)
        if self.split not in (None, ALL_SPLITS):
            self._check_split(report)
        return _Scan(report, repeated)

    def _check_split(self, report: CaptionReport) -> None:
        if not report.splits and (report.captions or report.blank or report.bad):
            raise UserError(
                f"{self.path}: split={self.split!r}, but this {report.form} knows no splits"
            )
        if not report.captions and report.other_splits:
            raise UserError(
                f"{self.path}: no caption is of split={self.split!r}, only of "
                f"{sorted(report.splits)}"
            )

    def _note_repeated(self, repeated: RepeatedIds, report: CaptionReport) -> None:
        """Refuse ids that are repeated, or count those after the first as bad."""
        first: dict[str, str] = {}
        for record, _ in self._accepted(CaptionReport(self.path)):
            own = caption_id(record)
            if own not in repeated:
                continue
            if own not in first:
                line = "line " if record.location.isdecimal() else ""
                first[own] = f"{line}{record.location}"
                continue
            self._refuse(
                Record(record.location, problem=f"id {own!r} is that of {first[own]} too"), report
            )
            report.captions -= 1

    def _accepted(self, report: CaptionReport) -> Iterator[tuple[Record, str]]:
        """The records of the split that have a caption, with its text; counts the others."""
        with self._errors():
            for record in self._format().read(self.open, self.column):
                if record.split is not None:
                    report.splits.add(record.split)
                if not self._wants(record):
                    report.other_splits += 1
                    continue
                if record.rejected:
                    report.rejected += 1
                    continue
                text = clean_text(record.text) if isinstance(record.text, str) else ""
                problem = record.problem or self._find_problem(record, text)
                if problem:
                    self._refuse(record._replace(problem=problem), report)
                elif not text:
                    report.blank += 1
                else:
                    yield record, text

    def _wants(self, record: Record) -> bool:
        if record.split is None or self.split == ALL_SPLITS:
            return True
        wanted = self.split or "train"
        return record.split in (_TRAINING if wanted == "train" else (wanted,))

    def _find_problem(self, record: Record, text: str) -> str:
        for value in (record.id, record.image_id, record.file_name, text):
            if value is not None and not value.isascii() and not _is_unicode(value):
                return "not Unicode: it holds half of a surrogate pair"
        if len(text) > self.max_chars:
            return f"a caption of {len(text):,} characters, more than {self.max_chars:,}"
        return ""

    def _refuse(self, record: Record, report: CaptionReport) -> None:
        """Count a caption that cannot be read.

        Raises:
            UserError: Unless ``skip_invalid``.
        """
        location = record.location if record.location.isdigit() else f" {record.location}"
        message = f"{self.path}:{location}: {record.problem}"
        if self.skip_invalid:
            report.add_bad(message + describe_fixes(record.fixes, self.options))
            return
        skip = describe_fixes((("skip_invalid", True),), self.options)
        skip = f" ({skip.removeprefix(': pass ')} leaves such captions out)"
        advice = describe_fixes(record.fixes, self.options) if record.fixes else skip
        raise UserError(message + advice)


class _Scan(NamedTuple):
    """Cached facts about a file."""

    report: CaptionReport
    repeated: RepeatedIds


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
