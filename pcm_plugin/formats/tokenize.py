"""Word tokenizer of captions, for the vocabulary and the metrics without Java."""

import functools
import unicodedata

from pcm_plugin.formats.cleaning import clean_text

# Karpathy's COCO tokens, from which the released vocabularies were counted, drop apostrophes
# ("man's" is `mans`), split at hyphens ("t-shirt" is `t`, `shirt`) and keep two symbols as words.
_DROPPED = frozenset("'\u2019\u2018`")
_WORDS = frozenset("&#")


class _CharacterMap(dict):
    """Translation table for ``str.translate``, filled on demand."""

    def __missing__(self, code: int) -> str | None:
        char = chr(code)
        mapped: str | None
        if char in _DROPPED:
            mapped = None
        elif char in _WORDS:
            mapped = f" {char} "
        elif unicodedata.category(char)[0] in "PS":
            mapped = " "
        else:
            mapped = char
        self[code] = mapped
        return mapped


_CHARACTERS = _CharacterMap()


def tokenize(caption: str) -> list[str]:
    """Split a caption into lower-case words without punctuation.

    The rules are those of Karpathy's ``tokens``: apostrophes are dropped (``man's`` is ``mans``);
    ``&`` and ``#`` are words; every other punctuation mark or symbol separates words, hyphens
    included (``t-shirt`` is ``t``, ``shirt``), as does white space. Letters of any script are kept;
    the text first goes through :func:`~pcm_plugin.formats.cleaning.clean_text`.

    Args:
        caption: One sentence.

    Returns:
        The words; empty if the caption has none.
    """
    words = clean_text(caption).lower().translate(_CHARACTERS).split()
    # The parts of a joined emoji are symbols and dropped, which leaves the joiner.
    return [word for word in words if word != "\u200d"]


@functools.cache
def singular(word: str) -> str:
    """Return the singular of an English noun, or the word itself if it is not a plural."""
    # Slow to import, and rarely needed.
    from textblob.en.inflect import singularize

    return singularize(word)
