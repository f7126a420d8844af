"""Lower case as in Java, which differs from Python's for the Greek sigma.

Both use the final form of sigma at the end of a Greek word. Python tests for a letter directly
before it and no letter directly after it. Java considers the whole word, with its own definition of
words: digits belong to them, ideographs and kana do not, and a hyphen, period or quote between
letters joins them. Source: observed behavior of ``String.toLowerCase`` and ``BreakIterator`` of
OpenJDK 17.
"""

import re
import unicodedata

_KINDS = {"L": "a", "M": "m", "N": "0", "Cf": "m", "Pc": "m", "Pd": "-"}
_APART = re.compile("[\u3041-\u309f\u30a1-\u30ff\u3400-\ua000]")
_WORD = re.compile("[am0]+(?:(?<=[am])-(?=a)[am0]+)*")
_CASED_SIGN = re.compile("[ʰ-ʸˀˁˠ-ˤ\u0345ͺᴬ-ᵡⅠ-ⅿⒶ-ⓩ]")


def lower(token: str) -> str:
    """Return a token in lower case.

    Args:
        token: Token in any case.
    """
    if "Σ" not in token:
        return token.lower()
    letters = [character.lower() for character in token]
    for word in _WORD.finditer("".join(map(_kind, token))):
        cased = [place for place in range(*word.span()) if _is_cased(token[place])]
        if len(cased) > 1 and token[cased[-1]] == "Σ":
            letters[cased[-1]] = "ς"
    return "".join(letters)


def _kind(character: str) -> str:
    if _APART.match(character):
        return " "
    if character in "'\".\xad\u2027":
        return "-"
    category = unicodedata.category(character)
    return _KINDS.get(category) or _KINDS.get(category[0], " ")


def _is_cased(character: str) -> bool:
    category = unicodedata.category(character)
    return category in ("Lu", "Ll", "Lt") or _CASED_SIGN.match(character) is not None
