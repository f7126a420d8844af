"""Reader of captions in Parquet files, such as those of Hugging Face data sets."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pcm_plugin.formats.captions.record import Record, likely_column
from pcm_plugin.formats.captions.values import from_json
from pcm_plugin.formats.parquet_table import import_pyarrow
from pcm_plugin.formats.text.errors import FileFormatError

PARQUET_MAGIC = b"PAR1"
"""The first bytes of a Parquet file."""

_BATCH_ROWS = 1024


def is_parquet(path: Path) -> bool:
    """Return whether a file starts like a Parquet file."""
    with open(path, "rb") as file:
        return file.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC


def read_parquet(open_file: Callable[[], BinaryIO], column: str) -> Iterator[Record]:
    """Read a Parquet file: a caption, or a list of captions, per row under ``column``.

    Of the other columns those of numbers and strings are read as fields; images are not read.
    Rows are numbered from 0.

    Raises:
        FileFormatError: If the file is damaged or has no column of that name.
        RuntimeError: If pyarrow is not installed.
    """
    pa = import_pyarrow()
    with open_file() as source:
        try:
            with pa.parquet.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20) as file:
                columns = _columns(file.schema_arrow, column, pa)
                number = 0
                for batch in file.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False):
                    for fields in batch.to_pylist():
                        yield from from_json(f"row {number}", number, fields, column)
                        number += 1
        except UnicodeDecodeError as error:
            raise FileFormatError(f"a string after row {number} is not UTF-8: {error}") from None
        except (pa.ArrowException, OSError) as error:
            message = " ".join(str(error).split())[:200]
            raise FileFormatError(
                f"a Parquet file that is damaged or not complete ({message}): download it again"
            ) from None


def _columns(schema: Any, column: str, pa: Any) -> list[str]:
    if column not in schema.names:
        likely = likely_column(schema.names)
        fixes = [] if likely is None else [("column", likely)]
        raise FileFormatError(f"no column {column!r}, only {schema.names}", *fixes)
    return [field.name for field in schema if field.name == column or _is_scalar(field.type, pa)]


def _is_scalar(kind: Any, pa: Any) -> bool:
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    numbers = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    return numbers or types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind)
