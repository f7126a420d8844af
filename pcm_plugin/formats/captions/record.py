"""Captions and the raw records that readers make of them."""

import re
from typing import Any, NamedTuple

from pcm_plugin.errors import UserError
from pcm_plugin.formats.image_ids import normalize_id

IMAGE_FIELDS = (
    *("file_name", "filename", "image", "image_name", "image_file", "img", "img_name", "file"),
    *("filepath", "file_path", "image_path", "img_path"),
)
"""Fields that may hold the file name of an image, in order of preference."""

IMAGE_FILE = re.compile(
    r"\S.*\.(?:jpe?g|jfif|jpe|png|webp|gif|bmp|tiff?|avif|heic|ppm|jp2)", re.IGNORECASE
)
"""Pattern of the name of an image file."""

ALL_SPLITS = "all"
"""Value of ``split`` for the captions of all splits."""

_TRAINING = ("train", "restval")
_MISSING = frozenset(["", "nan", "null", "none", "<na>", "\\n"])
_MAX_MISSING_CHARS = 80  # with white space around it
_SPLITS = {
    "training": "train",
    **dict.fromkeys(("validation", "valid", "dev"), "val"),
    "testing": "test",
}
_REJECTED = ("is_rejected", "is_precanned")
_IMAGE_IDS = ("image_id", "img_id", "imageid", "imgid")
_READ = frozenset([*IMAGE_FIELDS, *_REJECTED, *_IMAGE_IDS])


class Caption(NamedTuple):
    """A caption of a data set.

    Attributes:
        id: Id of the caption, unique in its file; the seed of its synthetic image depends on it.
        image_id: Id of the image that it describes, or of the caption if the file names no image.
        text: The sentence, as :func:`~pcm_plugin.formats.cleaning.clean_text` returns it.
        file_name: File name of the image. Defaults to None: the file does not name it.
    """

    id: str
    image_id: str
    text: str
    file_name: str | None = None


class Record(NamedTuple):
    """One caption as it is in a file, before it is checked.

    Attributes:
        location: Location for messages: a line number, or an entry of a JSON document.
        number: Number in the file, which replaces a missing id.
        text: The caption. Defaults to None: it cannot be read.
        problem: Why it cannot be read. Defaults to an empty text.
        fixes: Arguments and values that would help. Defaults to none: ``skip_invalid=True`` does.
        id: Id in the file. Defaults to None: the file has none.
        image_id: Id of the image in the file. Defaults to None: the file has none.
        file_name: File name of the image. Defaults to None.
        split: Split that the file assigns the caption to. Defaults to None.
        rejected: Whether the file marks the caption as unusable (VizWiz). Defaults to False.
    """

    location: str
    number: int = 0
    text: Any = None
    problem: str = ""
    fixes: tuple[tuple[str, Any], ...] = ()
    id: str | None = None
    image_id: str | None = None
    file_name: str | None = None
    split: str | None = None
    rejected: bool = False


def is_missing(value: Any) -> bool:
    """Return whether a value is missing: null, an empty text, or what pandas or SQL write."""
    if isinstance(value, str):
        return len(value) < _MAX_MISSING_CHARS and value.strip().lower() in _MISSING
    return value is None or value != value  # NaN


def as_id(value: Any) -> str | None:
    """Return an id as text, or None if it is missing.

    Raises:
        UserError: If it is neither text nor a number.
    """
    if is_missing(value):
        return None
    if isinstance(value, str):
        return value.strip()
    if not isinstance(value, int | float):
        raise UserError(f"an id must be a number or a text, got {str(value)[:60]!r}")
    return normalize_id(value)


def from_fields(
    location: str, number: int, text: Any, fields: dict[str, Any], given_id: Any = None
) -> Record:
    """Make a record from the named fields of a table row or JSON object.

    Args:
        location: See :class:`Record`.
        number: See :class:`Record`.
        text: The caption.
        fields: All fields. ``id``, ``image_id`` (or ``img_id``), ``split``, those of
            :data:`IMAGE_FIELDS`, and VizWiz's ``is_rejected`` and ``is_precanned`` are read. An
            ``image_id`` that is the name of an image file names the file too. Other names of
            splits, such as ``validation``, become ``train``, ``val`` and ``test``.
        given_id: The caption's id, if it is not ``fields['id']``.
    """
    named = fields.keys() & _READ
    try:
        own = as_id(fields.get("id") if given_id is None else given_id)
        image_id = _first_id(fields, _IMAGE_IDS) if named else None
        name = _first_id(fields, IMAGE_FIELDS) if named else None
    except UserError as error:
        return Record(location, number, problem=str(error))
    if name is None and image_id is not None and IMAGE_FILE.fullmatch(image_id):
        name, image_id = image_id, None
    split = None if is_missing(fields.get("split")) else str(fields["split"]).strip().lower()
    return Record(
        location,
        number,
        text,
        id=own,
        image_id=image_id,
        file_name=name,
        split=None if split is None else _SPLITS.get(split, split),
        rejected=bool(named) and any(_is_true(fields.get(key)) for key in _REJECTED),
    )


def _first_id(fields: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    """Return the first of several fields that is not missing, as text."""
    for key in keys:
        if key in fields and not is_missing(fields[key]):
            return as_id(fields[key])
    return None


def likely_column(columns: list[str]) -> str | None:
    """Guess from their names which column holds the captions; None if none seems to."""
    names = ("caption", "captions", "comment", "sentence", "text", "description", "raw", "title")
    by_name = {column.lower(): column for column in reversed(columns)}
    exact = next((by_name[name] for name in names if name in by_name), None)
    partly = (c for name in names for c in columns if name in c.lower() and "id" not in c.lower())
    return exact or next((c for c in partly if "num" not in c.lower()), None)


def names_image(text: str) -> bool:
    """Return whether a text may be the name of an image file, or an id with a digit."""
    return bool(IMAGE_FILE.fullmatch(text) or re.fullmatch(r"\S*\d\S*", text))


def shorten(text: Any) -> str:
    """Return the beginning of a text, quoted, for messages."""
    return repr(str(text).strip()[:60])


def _is_true(value: Any) -> bool:
    return str(value).strip().lower() in ("true", "1", "1.0")


def in_split(record: Record, split: str | None) -> bool:
    """Return whether a record belongs to a split; see ``CaptionFile``."""
    if record.split is None or split == ALL_SPLITS:
        return True
    return record.split in (_TRAINING if split in (None, "train") else (split,))


def find_problem(record: Record, text: str, max_chars: int) -> str:
    """Return why a caption that was read is invalid, or an empty text if it is valid."""
    for value in (record.id, record.image_id, record.file_name, text):
        if value is not None and not value.isascii() and not _is_unicode(value):
            return "not Unicode: it holds half of a surrogate pair"
    if len(text) > max_chars:
        return f"a caption of {len(text):,} characters, more than {max_chars:,}"
    return ""


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
