"""Tokens of captions in any language, for scores."""

import regex

from pcm_plugin.errors import UserError
from pcm_plugin.formats.cleaning import clean_text
from pcm_plugin.formats.tokenize import tokenize

ENGLISH = "en"

_CODE = regex.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]+)*")
# Languages whose words are not separated by spaces.
_BY_CHARACTER = ("zh", "yue", "ja", "th", "lo", "km", "my")
# Their i has two capital letters, which Unicode's default rules confuse.
_DOTTED_I = ("tr", "az")

# \u30fc and \u3005 are signs that lengthen and repeat a character of Japanese.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\u30fc\u3005\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_INSIDE = r"[\p{L}\p{N}\p{M}\u200c\u200d]"
_WORDS = regex.compile(rf"[\p{{L}}\p{{N}}]{_INSIDE}*")
_CHARACTERS = regex.compile(
    rf"(?=[\p{{L}}\p{{N}}]){_UNSPACED}\p{{M}}*"
    rf"|(?!{_UNSPACED})[\p{{L}}\p{{N}}](?:(?!{_UNSPACED}){_INSIDE})*"
)


def check_language(language: str) -> None:
    """Check the code of a language.

    Args:
        language: A code of ISO 639 in lower case, optionally with a script or a region, such as
            ``'tr'``, ``'zh-Hant'`` or ``'pt-BR'``.

    Raises:
        UserError: If it is not such a code.
    """
    if not isinstance(language, str) or not _CODE.fullmatch(language):
        raise UserError(
            "`language` must be a code of ISO 639 such as 'en', 'tr', 'zh' or 'pt-BR', got "
            f"`{language!r}`"
        )


def is_english(language: str) -> bool:
    """Return whether a code of a language is that of English."""
    return _primary(language) == ENGLISH


def is_by_character(language: str) -> bool:
    """Return whether the tokens of a language are characters instead of words."""
    return _primary(language) in _BY_CHARACTER


def split_tokens(text: str, language: str) -> list[str]:
    """Split a caption into lower-case tokens.

    - A word is a run of letters, their combining marks, and digits. Everything else separates
      words, hyphens and apostrophes included.
    - In Chinese, Japanese, Thai, Lao, Khmer and Burmese, each character of their scripts is a token
      with its combining marks; words in other scripts and numbers are words.

    Letters are lower-cased by Unicode's rules, in Turkish and Azerbaijani by their own (``I`` is
    ``\u0131``, ``\u0130`` is ``i``). The text first goes through
    :func:`~pcm_plugin.formats.cleaning.clean_text`.

    Args:
        text: One caption.
        language: Code of its language.

    Returns:
        The tokens; empty if the caption has none.
    """
    text = clean_text(text)
    if _primary(language) in _DOTTED_I:
        text = text.replace("\u0130", "i").replace("I", "\u0131")
    pattern = _CHARACTERS if is_by_character(language) else _WORDS
    return pattern.findall(text.lower())


def split_words(text: str, language: str) -> list[str]:
    """Split a caption into the words by which captions are compared.

    Args:
        text: One caption.
        language: Code of its language.

    Returns:
        The words of :func:`~pcm_plugin.formats.tokenize.tokenize` for English, otherwise those of
        :func:`split_tokens`.
    """
    return tokenize(text) if is_english(language) else split_tokens(text, language)


def _primary(language: str) -> str:
    return language.partition("-")[0]
