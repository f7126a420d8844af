"""Formats of caption files: detection, and a reader for each.

Every reader is a generator that holds one record at a time, so that memory does not grow with the
file. It takes a function that opens the file as UTF-8, or as it is if it is a Parquet file, and
the name of the column or field that holds the captions.
"""

from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from pcm_plugin.formats.captions.detect import detect_format
from pcm_plugin.formats.captions.json_documents import (
    read_coco,
    read_karpathy,
    read_list,
    read_mapping,
    read_nwpu,
    read_textcaps,
)
from pcm_plugin.formats.captions.lines import read_jsonl, read_text, read_tokens
from pcm_plugin.formats.captions.parquet import read_parquet
from pcm_plugin.formats.captions.record import Record
from pcm_plugin.formats.captions.table import read_table


class Format(NamedTuple):
    """A format of caption files.

    Attributes:
        name: Common name.
        read: Reader.
        ids_may_be_images: Whether repeated ids may be ids of images. Defaults to False.
    """

    name: str
    read: Callable[[Callable[[], BinaryIO], str], Iterator[Record]]
    ids_may_be_images: bool = False


FORMATS = {
    "text": Format("plain text", read_text),
    "table": Format("table", read_table, True),
    "jsonl": Format("JSONL", read_jsonl, True),
    "json": Format("JSON list", read_list, True),
    "mapping": Format("JSON captions by image", read_mapping),
    "coco": Format("COCO captions JSON", read_coco),
    "karpathy": Format("Karpathy's JSON", read_karpathy),
    "flickr": Format("Flickr token file", read_tokens),
    "nwpu": Format("NWPU-Captions JSON", read_nwpu),
    "textcaps": Format("TextCaps JSON", read_textcaps),
    "parquet": Format("Parquet", read_parquet, True),
}
"""Formats by the value of ``format`` and ``--format``."""

__all__ = ["FORMATS", "Format", "Record", "detect_format"]
