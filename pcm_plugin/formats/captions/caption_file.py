"""Caption file: captions of any supported format, read one at a time.

Format detection and readers are written by hand, on top of ``csv``, ``json`` and ``ijson``. A CSV
reader alone merges all rows between two stray quotation marks without an error, a JSON reader alone
holds the whole document in memory, and neither detects the format or names the line of an invalid
caption. ``benchmarks/read_corpus.py`` measures the speed.
"""

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
from pcm_plugin.formats.captions.record import ALL_SPLITS, Caption, find_problem, in_split
from pcm_plugin.formats.captions.report import CaptionReport
from pcm_plugin.formats.cleaning import clean_text
from pcm_plugin.formats.image_ids import strip_image_suffix
from pcm_plugin.formats.text.errors import FileFormatError, describe_fixes
from pcm_plugin.formats.text.scripts import is_unspaced
from pcm_plugin.formats.text.text_file import is_clearly_utf8, open_text


@dataclass(frozen=True)
class CaptionFile:
    """Iterable over the captions of a file, which is read again for each iteration.

    The format is detected from the content. Texts go through
    :func:`~pcm_plugin.formats.cleaning.clean_text`. Blank captions and those that VizWiz marks as
    rejected or canned are skipped.

    Caption ids are unique. A caption without an id gets the number of its line or entry. If ids
    are repeated in a table, JSONL or a JSON list, and all captions with the same id describe one
    image, or no images are named, they are taken as ids of images: the captions get ``ID#1``,
    ``ID#2``, ... in the order of the file. Any other repeated id is an error. An image that is
    named by its file only gets the file name without suffix as its id.

    Args:
        path: A text file, optionally compressed with gzip, or a Parquet file.
        column: Column or field that holds the captions, in tables, JSONL, JSON lists and Parquet.
            Defaults to ``'caption'``.
        split: ``'train'``, ``'val'`` or ``'test'``, for files with splits, or ``'all'``. Defaults
            to None: the training split of a file with splits (including Karpathy's ``restval``),
            and all captions of a file without.
        skip_invalid: Whether to skip captions that cannot be read instead of raising an error.
            Defaults to False.
        max_chars: A longer caption is invalid. Defaults to 1,000.
        format: A key of :data:`~pcm_plugin.formats.captions.FORMATS`. Defaults to None: detected.
        encoding: Name of the encoding in Python. Defaults to None: that of the byte-order mark, or
            UTF-8.
        options: Command-line options that messages name instead of these arguments, by argument,
            such as ``{'skip_invalid': '--skip-invalid'}``. Defaults to None.

    Raises:
        MissingFileError: If the file does not exist.
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

        ``format`` is dropped if the format of the file can be detected, and ``encoding`` if the
        file has a byte-order mark or is valid UTF-8 with non-ASCII characters.

        Raises:
            MissingFileError: If the file does not exist.
        """
        file = replace(self, path=Path(path), split=None)
        if self.encoding is not None and is_clearly_utf8(path):
            file = replace(file, encoding=None)
        if self.format is not None:
            detected = replace(file, format=None)
            with contextlib.suppress(UserError):
                detected.format_name()
                return detected
        return file

    def __iter__(self) -> Iterator[Caption]:
        """Read the captions in the order of the file.

        Raises:
            UserError: At the first invalid caption, unless ``skip_invalid``, and at repeated ids
                that are not ids of images; the message starts with file and line. If the format
                cannot be read, or the file has no such split. Raised before the first caption is
                returned.
        """
        repeated = self._scan().repeated
        numbers: Counter[str] = Counter()
        seen: set[str] = set()
        for record, text in self._accepted(CaptionReport(self.path)):
            record_id = caption_id(record)
            image_id = record.image_id or strip_image_suffix(record.file_name or "") or record_id
            if repeated.of_images:
                numbers[record_id] += 1
                record_id = f"{record_id}#{numbers[record_id]}"
            elif record_id in repeated:
                if record_id in seen:
                    continue
                seen.add(record_id)
            yield Caption(record_id, image_id, text, record.file_name)

    def format_name(self) -> str:
        """Return the name of the file's format, e.g. ``'COCO captions JSON'``.

        Raises:
            UserError: If the format is not supported.
        """
        return self._format().name

    def has_splits(self) -> bool:
        """Return whether the file assigns its captions to splits."""
        with self._errors():
            first = next(self._format().read(self.open, self.column), None)
        return first is not None and first.split is not None

    def scan(self) -> CaptionReport:
        """Read the whole file once and count.

        Raises:
            UserError: As for reading, and if there are no captions.
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
        """Count captions and find repeated ids; the result is cached."""
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
        if not report.splits and (report.captions or report.blank or report.invalid):
            raise UserError(
                f"{self.path}: split must be None or 'all' since this {report.format} has no "
                f"splits, got {self.split!r}"
            )
        if not report.captions and report.other_splits:
            raise UserError(
                f"{self.path}: split must be one of {sorted(report.splits)}, got {self.split!r}"
            )

    def _note_repeated(self, repeated: RepeatedIds, report: CaptionReport) -> None:
        """Raise an error for repeated ids, or count those after the first as invalid."""
        first: dict[str, str] = {}
        for record, _ in self._accepted(CaptionReport(self.path)):
            record_id = caption_id(record)
            if record_id not in repeated:
                continue
            if record_id not in first:
                line = "line " if record.location.isdecimal() else ""
                first[record_id] = f"{line}{record.location}"
                continue
            self._refuse(
                Record(
                    record.location, problem=f"id {record_id!r} is also used in {first[record_id]}"
                ),
                report,
            )
            report.captions -= 1

    def _accepted(self, report: CaptionReport) -> Iterator[tuple[Record, str]]:
        """Yield the records of the split that have a caption, with its text; count the others."""
        with self._errors():
            for record in self._format().read(self.open, self.column):
                if record.split is not None:
                    report.splits.add(record.split)
                if not in_split(record, self.split):
                    report.other_splits += 1
                    continue
                if record.rejected:
                    report.rejected += 1
                    continue
                text = clean_text(record.text) if isinstance(record.text, str) else ""
                problem = record.problem or find_problem(record, text, self.max_chars)
                if problem:
                    self._refuse(record._replace(problem=problem), report)
                elif not text:
                    report.blank += 1
                else:
                    yield record, text

    def _refuse(self, record: Record, report: CaptionReport) -> None:
        """Count an invalid caption.

        Raises:
            UserError: Unless ``skip_invalid`` is set.
        """
        location = record.location if record.location.isdigit() else f" {record.location}"
        message = f"{self.path}:{location}: {record.problem}"
        if self.skip_invalid:
            report.add_invalid(message + describe_fixes(record.fixes, self.options))
            return
        skip = describe_fixes((("skip_invalid", True),), self.options)
        skip = f" ({skip.removeprefix(': pass ')} skips such captions)"
        advice = describe_fixes(record.fixes, self.options) if record.fixes else skip
        raise UserError(message + advice)


class _Scan(NamedTuple):
    """Cached facts about a file."""

    report: CaptionReport
    repeated: RepeatedIds
