"""Settings of the search in a captioner file."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pcm_plugin.errors import MissingFileError
from pcm_plugin.formats.tensor_file import write_tensors
from pcm_plugin.models.captioner_file import FORMAT, read_captioner_file
from pcm_plugin.models.decoding.config import DecodingConfig


def write_decoding(path: str | os.PathLike, settings: Mapping[str, Any]) -> None:
    """Change settings of the search in a captioner file, which is replaced atomically.

    Args:
        path: File of :func:`~pcm_plugin.models.captioner_file.save_captioner`.
        settings: New values of :class:`.DecodingConfig` by name. Others keep their value.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If it is another file, or a setting is unknown or out of range.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no captioner at {path}")
    facts, tensors = read_captioner_file(path)
    decoding = {**(facts["model"].get("decoding") or {}), **settings}
    DecodingConfig().updated(decoding)
    facts["model"] = {**facts["model"], "decoding": decoding}
    metadata = {key: json.dumps(value, ensure_ascii=False) for key, value in facts.items()}
    write_tensors(path, tensors, {"format": FORMAT, **metadata})
