"""Vocabulary files: word lists, and tokenizers of subword vocabularies."""

import json
import os
from pathlib import Path
from typing import Any

from pcm_plugin.errors import UserError
from pcm_plugin.formats.caption_vocabulary import CaptionVocabulary
from pcm_plugin.formats.subword_vocabulary import SubwordVocabulary
from pcm_plugin.formats.vocabulary import Vocabulary

VOCABULARY_FILES = {"word": "vocabulary.txt", "subword": "tokenizer.json"}
"""Kinds of vocabularies, with the usual names of their files."""


def load_vocabulary(path: str | os.PathLike) -> CaptionVocabulary:
    """Read a vocabulary.

    Args:
        path: A ``.json`` file is a subword vocabulary, any other file has one word per line.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If it is not a vocabulary.
    """
    path = Path(path)
    if path.suffix != ".json" or not path.is_file():
        return Vocabulary.from_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not a subword vocabulary: {error}") from None
    if not isinstance(content, dict):
        raise UserError(
            f"{path} is not a subword vocabulary: it must be a JSON object, got a "
            f"{type(content).__name__}; make one with pcm build-vocabulary --kind subword"
        )
    try:
        return SubwordVocabulary(content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def vocabulary_from_json(value: Any) -> CaptionVocabulary:
    """Return the vocabulary of the JSON value that its ``to_json`` returned."""
    return SubwordVocabulary(value) if isinstance(value, dict) else Vocabulary(value)
