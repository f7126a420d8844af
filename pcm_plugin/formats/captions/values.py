"""Captions as JSON values: objects, texts, or pairs of image and text."""

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from typing import Any

from pcm_plugin.errors import UserError
from pcm_plugin.formats.captions.record import (
    IMAGE_FILE,
    Record,
    as_id,
    from_fields,
    is_missing,
    likely_column,
    shorten,
)

_LIST_OF_TEXTS = re.compile(r"\[\s*['\"].*['\"]\s*,?\s*\]", re.DOTALL)


def from_json(location: str, number: int, value: Any, column: str) -> Iterator[Record]:
    """Read one entry of a JSON list, or one line of JSONL.

    Args:
        location: See :class:`~pcm_plugin.formats.captions.record.Record`.
        number: See there.
        value: A text; a pair of an image (a file, or an id) and its caption or captions, in either
            order if the image is a file; or an object with the caption or captions under
            ``column``. Of several captions, the ids are ``IMAGE#0``, ``IMAGE#1``, ...
        column: Name of the field.
    """
    if isinstance(value, str) and IMAGE_FILE.fullmatch(value) and len(value.split()) == 1:
        problem = f"the name of an image file, not a caption: {shorten(value)}"
        yield Record(location, number, problem=problem)
    elif isinstance(value, str):
        yield Record(location, number, value)
    elif isinstance(value, list):
        yield from _from_pair(location, number, value)
    elif not isinstance(value, dict):
        problem = f"not a JSON object, a text or a pair: {shorten(value)}"
        yield Record(location, number, problem=problem)
    elif column not in value:
        likely = likely_column(list(value))
        fixes = () if likely is None else (("column", likely),)
        problem = f"no field {column!r}, only {sorted(value)}"
        yield Record(location, number, problem=problem, fixes=fixes)
    else:
        yield from of_image(location, number, value[column], value, f"under {column!r}")


def of_image(
    location: str, number: int, captions: Any, fields: dict[str, Any], place: str
) -> Iterator[Record]:
    """Read the caption of an image, or its captions.

    Args:
        location: See :class:`~pcm_plugin.formats.captions.record.Record`.
        number: See there.
        captions: A text, a list of texts, or such a list written as a text: as JSON, or as Python
            or NumPy print it, which is how pandas writes lists to tables. Of a list, the ids are
            ``IMAGE#0``, ``IMAGE#1``, ...
        fields: See :func:`~pcm_plugin.formats.captions.record.from_fields`.
        place: Where the captions are, for messages.
    """
    if isinstance(captions, str) and _LIST_OF_TEXTS.fullmatch(captions.strip()):
        listed = _parse_list(captions.strip())
        if listed is None:
            problem = f"a list of texts that cannot be read: {shorten(captions)}"
            yield Record(location, number, problem=problem)
            return
        captions = listed
    if isinstance(captions, str):
        yield from_fields(location, number, captions, fields)
        return
    if not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
        problem = f"no text {place} but {shorten(captions)}"
        yield Record(location, number, problem=problem)
        return
    whole = from_fields(location, number, "", fields)
    image = whole.id or whole.image_id or whole.file_name or str(number)
    for index, text in enumerate(captions):
        within = f"{location}[{index}]"
        record = from_fields(within, number, text, fields, f"{image}#{index}")
        if record.image_id is None and record.file_name is None:
            record = record._replace(image_id=image)
        yield record


def _from_pair(location: str, number: int, value: list) -> Iterator[Record]:
    pair = list(value)
    if len(pair) != 2:
        problem = f"a list of {len(pair)}, not a pair of image and caption: {shorten(value)}"
        yield Record(location, number, problem=problem)
        return
    files = [isinstance(part, str) and bool(IMAGE_FILE.fullmatch(part)) for part in pair]
    if files == [False, True]:
        pair.reverse()
    image, captions = pair
    words = isinstance(image, str) and len(image.split()) > 1
    if files == [True, True] or (not any(files) and words) or is_missing(image):
        problem = f"which part of the pair is the image? {shorten(value)}"
        yield Record(location, number, problem=problem)
        return
    try:
        fields = {"file_name" if any(files) else "image_id": as_id(image)}
    except UserError as error:
        yield Record(location, number, problem=str(error))
        return
    yield from of_image(location, number, captions, fields, "in the pair")


def _parse_list(text: str) -> list[str] | None:
    """Return the texts of a list written as JSON, or as Python or NumPy print it."""
    try:
        value = json.loads(text)
        return value if all(isinstance(part, str) for part in value) else None
    except ValueError:
        pass
    try:
        tokens = [*tokenize.generate_tokens(io.StringIO(text).readline)]
    except (tokenize.TokenError, SyntaxError):
        return None
    # NumPy has no commas between texts, which Python would join.
    strings = [token.string for token in tokens if token.type == tokenize.STRING]
    others = "".join(token.string for token in tokens if token.type != tokenize.STRING)
    if re.sub(r"[\s,]", "", others) != "[]":
        return None
    try:
        values = [ast.literal_eval(string) for string in strings]
    except (ValueError, SyntaxError):
        return None
    return values if all(isinstance(part, str) for part in values) else None
