"""How a caption becomes words: one tokenizer for the vocabulary and the Java-free metric."""

import unicodedata

from pcm_plugin.datasets.cleaning import clean_text

# Karpathy's COCO tokens, from which the released vocabularies were counted, write "t-shirt" as
# "tshirt" and "man's" as "mans": these two signs join what they stand between.
_JOINING = frozenset("'\u2019\u2018`-\u2010\u2011")


class _Signs(dict):
    """Translation table for ``str.translate``, filled as characters are met."""

    def __missing__(self, code: int) -> str | None:
        char = chr(code)
        if char in _JOINING:
            mapped = None
        elif unicodedata.category(char)[0] in "PS":
            mapped = " "
        else:
            mapped = char
        self[code] = mapped
        return mapped


_SIGNS = _Signs()


def tokenize(caption: str) -> list[str]:
    """Split a caption into lower-case words without punctuation.

    Apostrophes and hyphens vanish, every other punctuation mark or symbol separates words, as
    does white space. Letters of any script are kept. The text first goes through
    :func:`~pcm_plugin.datasets.cleaning.clean_text`.

    Args:
        caption: One sentence.

    Returns:
        The words, empty when the caption holds none.
    """
    words = clean_text(caption).lower().translate(_SIGNS).split()
    # Of a joined emoji, whose parts are symbols, the joiner alone would be left.
    return [word for word in words if word != "\u200d"]
