"""How a caption becomes words: one tokenizer for the vocabulary and the Java-free metric."""

import unicodedata

from pcm_plugin.formats.cleaning import clean_text

# Karpathy's COCO tokens, from which the released vocabularies were counted, drop apostrophes
# ("man's" is `mans`), split at hyphens ("t-shirt" is `t`, `shirt`) and keep two symbols as words.
_DROPPED = frozenset("'\u2019\u2018`")
_WORDS = frozenset("&#")


class _Signs(dict):
    """Translation table for ``str.translate``, filled as characters are met."""

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


_SIGNS = _Signs()


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
    words = clean_text(caption).lower().translate(_SIGNS).split()
    # Of a joined emoji, whose parts are symbols, the joiner alone would be left.
    return [word for word in words if word != "\u200d"]
