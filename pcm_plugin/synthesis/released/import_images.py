"""Import of images with captions from Parquet files to image shards.

SynthImgCap is published this way (columns ``image`` and ``text``), as are most image data sets of
the Hugging Face Hub. The shards are those that ``pcm generate`` writes.
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcm_plugin.errors import UserError
from pcm_plugin.formats.atomic_io import fingerprint
from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.captions.lines import write_jsonl
from pcm_plugin.formats.captions.record import Caption
from pcm_plugin.formats.cleaning import clean_text
from pcm_plugin.formats.image_shards import FORMAT, archive_name, image_key, write_image_shard
from pcm_plugin.formats.images.image_io import read_header, read_image
from pcm_plugin.formats.images.suffixes import suffix_of_format
from pcm_plugin.formats.parquet_files import find_parquet_files
from pcm_plugin.formats.parquet_table import ParquetRow, ParquetTable
from pcm_plugin.formats.shards import Shard, ShardFolder, shard_name
from pcm_plugin.synthesis.ranks import Rank
from pcm_plugin.synthesis.sharing import claim_shards

CAPTIONS = "captions.jsonl"


@dataclass(frozen=True)
class ImportImagesSettings:
    """Settings on which the imported shards depend, in addition to the files.

    Attributes:
        image_column: Column of the encoded images. Defaults to ``'image'``, SynthImgCap's.
        text_column: Column of the captions. Defaults to ``'text'``, SynthImgCap's.
        shard_size: Rows per shard. Defaults to 1,000.

    Raises:
        UserError: If ``shard_size`` is less than 1, or both columns are the same.
    """

    image_column: str = "image"
    text_column: str = "text"
    shard_size: int = 1000

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise UserError(f"shard_size must be at least 1, got {self.shard_size}")
        if self.image_column == self.text_column:
            raise UserError(
                f"image_column and text_column must differ, got {self.text_column!r} for both"
            )


def import_images(
    paths: Sequence[str | os.PathLike],
    settings: ImportImagesSettings,
    out: str | os.PathLike,
    limit: int | None = None,
    max_invalid: int = 0,
    partial: bool = False,
    rank: Rank | None = None,
) -> ShardFolder:
    """Copy the images of Parquet files into shards, as ``pcm extract`` reads them.

    Writes ``shard-00000.tar``, ... with, for each row, the bytes of its image as they are and a
    ``.json`` with ``id``, ``caption_id``, ``image_id`` (all three the row number over all files,
    from 0), ``caption`` and ``source`` (``'FILE#ROW'``); ``captions.jsonl`` with the captions
    alone; and ``manifest.json``. Captions are cleaned as those of caption files are.

    If the folder has shards already, only the missing ones are made. Several ranks share them and
    write the same bytes.

    Args:
        paths: Parquet files, or folders of them; see
            :func:`~pcm_plugin.formats.parquet_files.find_parquet_files`.
        settings: Columns and shard size.
        out: Folder to write.
        limit: Use only the first ``limit`` rows. Defaults to None, all.
        max_invalid: How many rows may have an image that cannot be decoded or a caption that is
            missing or blank. They are skipped and listed in the manifest. Defaults to 0.
        partial: Whether files of a numbered set may be missing. Defaults to False.
        rank: Rank of this process. Defaults to that of torchrun or srun.

    Returns:
        The finished folder.

    Raises:
        MissingFileError: If files are missing.
        RuntimeError: If pyarrow is not installed.
        UserError: If a file is damaged or lacks a column, more than ``max_invalid`` rows are
            invalid, the folder was made from other files or with other settings, or a number is
            out of range.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit must be at least 1, got {limit}")
    if max_invalid < 0:
        raise UserError(f"max_invalid must be at least 0, got {max_invalid}")
    rank = rank or Rank.from_environment()
    table = ParquetTable(find_parquet_files(paths, partial))
    table.check_column(settings.image_column, "image", "--image-column")
    table.check_column(settings.text_column, "text", "--text-column")
    files = table.fingerprints()
    _refuse_other_files(Path(out), files)
    total = min(table.num_rows, limit or table.num_rows)
    ranges = [
        range(start, min(start + settings.shard_size, total))
        for start in range(0, total, settings.shard_size)
    ]
    plan = [
        Shard(shard_name(index), len(rows), fingerprint([files, rows.start, rows.stop]))
        for index, rows in enumerate(ranges)
    ]
    folder = ShardFolder.open_for_write(out, FORMAT, {**settings.__dict__, "files": files}, plan)
    reader = _Reader(table, [settings.image_column, settings.text_column])
    for index, tick in claim_shards(folder, plan, rank, "import"):
        rows = reader.read(ranges[index])
        _write_shard(folder, plan[index], rows, settings, max_invalid, tick)
    _check_invalid(folder, {}, max_invalid)
    if rank.index == 0:
        _write_captions(folder, table, settings, total)
    return folder


class _Reader:
    """Reads ranges of rows; ascending ranges are read in one pass over the files."""

    def __init__(self, table: ParquetTable, columns: Sequence[str]) -> None:
        self._table, self._columns = table, columns
        self._rows: Iterator[ParquetRow] = iter(())
        self._next = -1

    def read(self, rows: range) -> Iterator[ParquetRow]:
        if rows.start != self._next:
            self._rows = self._table.rows(self._columns, rows.start)
        self._next = rows.stop
        return itertools.islice(self._rows, len(rows))


def _write_shard(
    folder: ShardFolder,
    shard: Shard,
    rows: Iterator[ParquetRow],
    settings: ImportImagesSettings,
    max_invalid: int,
    tick: Callable[[int], None],
) -> None:
    skipped: dict[str, str] = {}
    with write_image_shard(folder.path, shard.name) as writer:
        for row in rows:
            data = row.values[settings.image_column]
            try:
                suffix = _image_suffix(data)
                caption = _caption(row.values[settings.text_column])
            except UserError as error:
                skipped[row.place] = str(error)
                _check_invalid(folder, skipped, max_invalid)
            else:
                number = str(row.number)
                facts = {"id": number, "caption_id": number, "image_id": number}
                facts |= {"caption": caption, "source": row.place}
                writer.append(image_key(row.number), suffix, data, facts)
            tick(1)
    count = shard.count - len(skipped)
    folder.commit(shard, [archive_name(shard.name)], count, skipped=skipped)


def _image_suffix(data: bytes | None) -> str:
    """Decode an image, and return the file name suffix of its format."""
    if not data:
        raise UserError("no image bytes")
    read_image(data)
    return suffix_of_format(read_header(data).format)


def _caption(data: bytes | None) -> str:
    if data is None:
        raise UserError("no caption")
    try:
        caption = clean_text(data.decode())
    except UnicodeDecodeError:
        raise UserError("its caption is not UTF-8") from None
    if not caption:
        raise UserError("its caption is blank")
    if len(caption) > CaptionFile.max_chars:
        raise UserError(
            f"its caption has {len(caption):,} characters, more than {CaptionFile.max_chars:,}"
        )
    return caption


def _check_invalid(folder: ShardFolder, new: dict[str, str], max_invalid: int) -> None:
    """Raise if there are too many invalid rows in listed shards and the current one."""
    listed = [item for record in folder.shards.values() for item in record["skipped"].items()]
    invalid = listed + list(new.items())
    if len(invalid) > max_invalid:
        place, reason = invalid[-1]
        raise UserError(
            f"{place}: {reason}. Invalid rows so far: {len(invalid):,}, more than --max-invalid "
            f"{max_invalid:,}; with a larger number they are skipped and listed"
        )


def _write_captions(
    folder: ShardFolder, table: ParquetTable, settings: ImportImagesSettings, total: int
) -> None:
    invalid = {place for record in folder.shards.values() for place in record["skipped"]}
    rows = itertools.islice(table.rows([settings.text_column]), total)
    captions = (
        Caption(str(row.number), str(row.number), _caption(row.values[settings.text_column]))
        for row in rows
        if row.place not in invalid
    )
    write_jsonl(captions, folder.path / CAPTIONS)


def _refuse_other_files(out: Path, files: dict[str, str]) -> None:
    """Raise if the folder was made from other files, and name those that differ."""
    before: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError):
        folder = ShardFolder(out, FORMAT)
        before = folder.manifest["settings"].get("files", {}) if folder.shards else {}
    if not before or before == files:
        return
    changes = [f"{name} is missing now" for name in before if name not in files]
    changes += [f"{name} was not there" for name in files if name not in before]
    changes += [
        f"{name} was changed"
        for name in files
        if before.get(name, "") != files[name] and name in before
    ]
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    raise UserError(
        f"{out} was made from other Parquet files ({'; '.join(changes[:3])}{more}): pass the files "
        "that it was made from, or another --out folder"
    )
