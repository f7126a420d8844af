"""Phrases that captions contain or do not contain, as users write them."""

import regex

from pcm_plugin.formats.cleaning import clean_text

# `#`, `&`, `%` and `@` are read as words.
_MARK = r"[^\P{P}#&%@]"
_EDGES = regex.compile(rf"^(?:{_MARK}|\s)+|(?:{_MARK}|\s)+$")


def clean_phrase(text: str) -> str:
    """Return a phrase as it stands within captions.

    It is cleaned as captions are (:func:`~pcm_plugin.formats.cleaning.clean_text`). Punctuation
    before and after it is removed: ``'dog.'`` would not be found in ``'a dog runs'``. A phrase of
    punctuation only stays.

    Args:
        text: Words, or punctuation.

    Returns:
        The phrase; empty if the text has no visible character.
    """
    text = clean_text(text)
    return _EDGES.sub("", text) or text
