"""Scripts that are written without spaces between words."""

import re

_EAST = re.compile(
    "[\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]+"
)
_SOUTH = re.compile(
    "[\u0e01-\u0e5b\u0e81-\u0edf\u1000-\u109f\u1780-\u17ff\ua9e0-\ua9fe\uaa60-\uaa7f]+"
)
# Characters that words have on average at most, where they are separated: of Chinese and Japanese,
# and of Thai, Lao, Khmer and Burmese, whose vowels and tones are characters too.
_LONGEST_EAST, _LONGEST_SOUTH = 4, 10
_LARGEST_SHARE = 0.05


def is_unspaced(text: str) -> bool:
    """Return whether the words of a caption are not separated by spaces.

    Args:
        text: A caption, as :func:`~pcm_plugin.formats.cleaning.clean_text` returns it.

    Returns:
        True if at least half of it is Chinese, Japanese, Thai, Lao, Khmer or Burmese, in stretches
        that are longer than words are on average.
    """
    if text.isascii():
        return False
    east, south = _EAST.findall(text), _SOUTH.findall(text)
    characters = sum(map(len, east + south))
    if 2 * characters < len(text.replace(" ", "")) or not characters:
        return False
    if len(east) == 1 and not south and " " not in text:
        return len(east[0]) > 2
    mean_east, mean_south = (sum(map(len, runs)) / max(len(runs), 1) for runs in (east, south))
    return mean_east > _LONGEST_EAST or mean_south > _LONGEST_SOUTH


def begins_unspaced(text: str) -> bool:
    """Return whether the first character is of a script without spaces between words."""
    return bool(_EAST.match(text) or _SOUTH.match(text))


def unspaced_warning(count: int, total: int) -> str | None:
    """Return a warning if more than 5 % of captions are :func:`is_unspaced`.

    Args:
        count: Number of such captions.
        total: Number of captions.
    """
    if count <= _LARGEST_SHARE * total:
        return None
    return (
        f"{count:,} of {total:,} captions are Chinese, Japanese, Thai, Lao, Khmer or Burmese "
        "without spaces between words: a word-level vocabulary and English scores treat whole "
        "phrases as words. Build a subword vocabulary (pcm build-vocabulary --kind subword, "
        "vocabulary.kind='subword' in a recipe) and score in the language of the captions (such as "
        "language='zh'), or separate the words by spaces first, with a segmenter of the language "
        "such as jieba, fugashi or PyThaiNLP"
    )
