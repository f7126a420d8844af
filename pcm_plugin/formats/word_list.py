"""Word lists: text or JSON files of concepts."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import write_bytes

_MAX_CONCEPT_WORDS = 3


def read_word_list(path: str | os.PathLike) -> list[str]:
    """Read a list of concepts: words or short phrases.

    Args:
        path: A UTF-8 text file with one word per line, or a ``.json`` file with a list of words or
            with an object that maps class names of any length to numbers, such as VinVL's.

    Returns:
        The words in the order of the file, without duplicates.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If it has no words, is not UTF-8, or looks like captions.
    """
    if not Path(path).is_file():
        raise MissingFileError(f"no word list at {path}: pass a file with one word per line")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8: {error.reason}") from None
    lines, are_classes = text.splitlines(), False
    if Path(path).suffix == ".json":
        lines, are_classes = _words_of_json(path, text)
    words: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        word = " ".join(line.split())
        is_long = len(word.split()) > _MAX_CONCEPT_WORDS and not are_classes
        if is_long or word.startswith(("{", "[")):
            raise UserError(
                f"{path}:{number}: a line must be a phrase of at most {_MAX_CONCEPT_WORDS} words, "
                f"got {word[:60]!r}: pass a list of concepts, one per line"
            )
        if word:
            words[word] = None
    if not words:
        raise UserError(f"no words in {path}")
    return list(words)


def write_word_list(path: Path, words: Iterable[str]) -> None:
    """Write words, one per line, in UTF-8; an existing file is replaced atomically."""
    write_bytes(path, "".join(f"{word}\n" for word in words).encode())


def _words_of_json(path: str | os.PathLike, text: str) -> tuple[list[str], bool]:
    """Return the words of a JSON file, and whether they are the names of numbered classes."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    are_classes = isinstance(content, dict) and all(type(n) is int for n in content.values())
    words = list(content) if isinstance(content, list) or are_classes else []
    if not words or not all(isinstance(word, str) for word in words):
        raise UserError(
            f"{path} is not a list of words: pass a JSON list of texts, a JSON object of class "
            "names and their numbers, or one word per line"
        )
    return words, are_classes
