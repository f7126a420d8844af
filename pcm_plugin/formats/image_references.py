"""References of some images of a feature store: JSONL, one image per line.

{"image_id": "17", "captions": ["a dog runs", "a dog is running"]}
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.image_ids import refuse_repeated
from pcm_plugin.formats.records import write_records

_EXPECTED = '{"image_id": "17", "captions": ["a dog", ...]}'


def save_references(path: Path, references: Mapping[str, Sequence[str]]) -> None:
    """Write the references of images; an existing file is replaced atomically.

    Args:
        path: File to write, ``.jsonl``.
        references: The references by image id.
    """
    rows = ({"image_id": key, "captions": list(texts)} for key, texts in references.items())
    write_records(path, rows)


def load_references(path: str | os.PathLike) -> dict[str, list[str]]:
    """Read a file of :func:`save_references`.

    Args:
        path: The file, UTF-8.

    Returns:
        The references by image id, in the order of the file.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If a line holds something else, an image occurs twice, or there is none.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no references at {path}: write lines {_EXPECTED}")
    rows: list[tuple[str, list[str]]] = []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not _is_valid(row):
            raise UserError(f"{path}, line {number}: must be {_EXPECTED}, got {line[:80]!r}")
        rows.append((row["image_id"], row["captions"]))
    if not rows:
        raise UserError(f"{path} holds no image: write lines {_EXPECTED}")
    refuse_repeated(
        lambda: (image_id for image_id, _ in rows), f"image ids of {path}", "list each image once"
    )
    return dict(rows)


def _is_valid(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("image_id"), str):
        return False
    texts = row.get("captions")
    return isinstance(texts, list) and bool(texts) and all(isinstance(t, str) for t in texts)
