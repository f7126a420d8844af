"""Readers of caption files that are one JSON document, entry by entry."""

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import ijson

from pcm_plugin.formats.captions.record import (
    Record,
    as_id,
    from_fields,
    is_missing,
    names_image,
    shorten,
)
from pcm_plugin.formats.captions.values import from_json
from pcm_plugin.formats.image_ids import strip_image_suffix
from pcm_plugin.formats.text.byte_streams import CheckedUtf8
from pcm_plugin.formats.text.errors import FileFormatError


def read_coco(open_file: Callable[[], BinaryIO], column: str) -> Iterator[Record]:
    """Read the ``annotations`` of a COCO captions file."""
    for index, row in enumerate(read_items(open_file, "annotations.item")):
        location = f"annotations[{index}]"
        if not isinstance(row, dict):
            yield Record(location, index, problem=f"not a JSON object: {shorten(row)}")
        elif not isinstance(row.get("caption"), str):
            problem = f'no text under "caption", only {sorted(row)}'
            yield Record(location, index, problem=problem)
        else:
            keys = ("id", "image_id", "is_rejected", "is_precanned")
            fields = {key: row.get(key) for key in keys}
            record = from_fields(location, index, row["caption"], fields)
            # The images' list has the files: an id that looks like one is an id here.
            yield record._replace(file_name=None, image_id=record.image_id or record.file_name)


def read_karpathy(open_file: Callable[[], BinaryIO], column: str) -> Iterator[Record]:
    """Read ``dataset_coco.json`` and its like: images with a split and their sentences."""
    count = 0
    for index, image in enumerate(read_items(open_file, "images.item")):
        location = f"images[{index}]"
        sentences = image.get("sentences") if isinstance(image, dict) else None
        if not isinstance(sentences, list) or not isinstance(image.get("filename"), str):
            yield Record(location, count, problem='no "filename" with "sentences"')
            continue
        name = "/".join(filter(None, (image.get("filepath"), image["filename"])))
        for number, sentence in enumerate(sentences):
            within = f"{location}.sentences[{number}]"
            if not isinstance(sentence, dict) or not isinstance(sentence.get("raw"), str):
                yield Record(within, count, problem='no text under "raw"')
                continue
            stem = strip_image_suffix(image["filename"])
            image_id = image.get("cocoid")
            own = sentence.get("sentid")
            if is_missing(own):
                own = f"{stem if is_missing(image_id) else image_id}#{number}"
            fields = {"id": own, "split": image.get("split")}
            fields["image_id"] = stem if is_missing(image_id) else image_id
            yield from_fields(within, count, sentence["raw"], {**fields, "file_name": name})
            count += 1


def read_list(open_file: Callable[[], BinaryIO], column: str) -> Iterator[Record]:
    """Read a JSON list of objects, texts or pairs: AI Challenger's, LAVIS's, and others'."""
    for index, value in enumerate(read_items(open_file, "item")):
        yield from from_json(f"[{index}]", index + 1, value, column)


def read_mapping(open_file: Callable[[], BinaryIO], column: str) -> Iterator[Record]:
    """Read a JSON object that maps images (files or ids) to captions or lists of captions."""
    try:
        with open_file() as file:
            pairs = ijson.kvitems(CheckedUtf8(file), "", use_float=True)
            for number, (image, captions) in enumerate(pairs, start=1):
                if names_image(image):
                    texts = [captions] if isinstance(captions, str) else captions
                    yield from from_json(shorten(image), number, [image, texts], column)
                else:
                    problem = "not the name or the id of an image"
                    yield Record(shorten(image), number, problem=problem)
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise FileFormatError(f"broken JSON: {_one_line(error)}") from None


def read_nwpu(open_file: Callable[[], BinaryIO], column: str) -> Iterator[Record]:
    """Read NWPU-Captions: images by class, each with ``raw``, ``raw_1``, ... and a split.

    The images are in folders named after their classes.
    """
    count = 0
    for label, image in _members(open_file):
        location = f"{label}[{image.get('filename', '?')}]" if isinstance(image, dict) else label
        keys = [key for key in image if key == "raw" or key.startswith("raw_")] if image else []
        if not keys or not isinstance(image.get("filename"), str):
            yield Record(location, count, problem='no "filename" with "raw"')
            continue
        stem = strip_image_suffix(image["filename"])
        for number, key in enumerate(keys):
            fields = {"id": f"{stem}#{number}", "image_id": stem, "split": image.get("split")}
            fields["file_name"] = f"{label}/{image['filename']}"
            if isinstance(image[key], str):
                yield from_fields(f"{location}.{key}", count, image[key], fields)
            else:
                yield Record(f"{location}.{key}", count, problem=f'no text under "{key}"')
            count += 1


def read_textcaps(open_file: Callable[[], BinaryIO], column: str) -> Iterator[Record]:
    """Read TextCaps: ``data`` with a caption, or the references of an image, per entry."""
    for index, row in enumerate(read_items(open_file, "data.item")):
        location = f"data[{index}]"
        if not isinstance(row, dict) or is_missing(row.get("image_id")):
            yield Record(location, index, problem='no JSON object with "image_id"')
            continue
        image_id = as_id(row["image_id"])
        fields: dict[str, Any] = {"image_id": image_id, "split": row.get("set_name")}
        fields["file_name"] = f"{image_id}.jpg"
        references = row.get("reference_strs")
        if isinstance(row.get("caption_str"), str):
            fields["id"] = row.get("caption_id")
            yield from_fields(location, index, row["caption_str"], fields)
        elif isinstance(references, list) and all(isinstance(text, str) for text in references):
            for number, text in enumerate(references):
                yield from_fields(location, index, text, fields, f"{image_id}#{number}")
        else:
            problem = 'no text under "caption_str", no texts under "reference_strs"'
            yield Record(location, index, problem=problem)


def read_items(open_file: Callable[[], BinaryIO], prefix: str) -> Iterator[Any]:
    """Read the entries of a JSON document under an ijson prefix, one at a time."""
    try:
        with open_file() as file:
            # As floats, not as Decimal: ids are compared and written as JSON.
            yield from ijson.items(CheckedUtf8(file), prefix, use_float=True)
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise FileFormatError(f"broken JSON: {_one_line(error)}") from None


def read_events(open_file: Callable[[], BinaryIO]) -> Iterator[tuple[str, str, Any]]:
    """Parse JSON documents, one after the other, into ijson's prefix, event and value."""
    try:
        with open_file() as file:
            yield from ijson.parse(CheckedUtf8(file), multiple_values=True, use_float=True)
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise FileFormatError(f"neither JSON nor JSONL: {_one_line(error)}") from None


def _members(open_file: Callable[[], BinaryIO]) -> Iterator[tuple[str, Any]]:
    """Yield the entries of the lists in a JSON object, with the keys of the lists."""
    builder, label = ijson.ObjectBuilder(), ""
    try:
        with open_file() as file:
            for prefix, event, value in ijson.parse(CheckedUtf8(file), use_float=True):
                if (prefix, event) == ("", "map_key"):
                    label = value
                elif prefix == f"{label}.item" or prefix.startswith(f"{label}.item."):
                    builder.event(event, value)
                    if (prefix, event) == (f"{label}.item", "end_map"):
                        yield label, builder.value
                        builder = ijson.ObjectBuilder()
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise FileFormatError(f"broken JSON: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
