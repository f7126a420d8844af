"""Remove markup and invisible characters from captions."""

import html
import re
import unicodedata

_MARKUP = re.compile(r"[&<\x00-\x08\x0e-\x1f\x7f]")
_ENTITY = re.compile(
    r"&(?:#[0-9]{1,7};|#[xX][0-9a-fA-F]{1,6};|[A-Za-z][A-Za-z0-9]{1,31};"
    r"|(?:amp|lt|gt|quot|apos|nbsp)(?![A-Za-z0-9;=]))"
)
_INLINE_TAGS = "a|abbr|b|big|cite|code|del|em|font|i|ins|kbd|mark|q|s|small|span|strike|strong"
_INLINE_TAGS += "|sub|sup|tt|u|wbr"
_BLOCK_TAGS = "blockquote|body|br|center|dd|div|dl|dt|h[1-6]|head|hr|html|img|input|li|ol|p|pre"
_BLOCK_TAGS += "|script|style|table|tbody|td|tfoot|th|thead|tr|ul"
_TAG = r"</?(?:{})(?:\s[^<>]*)?/?>"
_INLINE = re.compile(_TAG.format(_INLINE_TAGS) + "|<!--.{0,2000}?-->", re.IGNORECASE | re.DOTALL)
_BLOCK = re.compile(_TAG.format(_BLOCK_TAGS), re.IGNORECASE)
_JOINERS = re.compile("[\u200c\u200d]+")

# Characters without a glyph: Unicode's Default_Ignorable_Code_Point, less the joiners, Hangul's
# conjoining fillers and the Mongolian vowel separator, which spell words; and the keycap frame.
_INVISIBLE = (
    *(0xAD, 0x34F, 0x61C, 0x17B4, 0x17B5, 0x200E, 0x200F, 0x20E3, 0xFEFF, 0xFFFC),
    *range(0x180B, 0x180E),
    0x180F,
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    *range(0xFE00, 0xFE10),
    *range(0xFFF0, 0xFFFC),
    *range(0x1BCA0, 0x1BCA4),
    *range(0x1D173, 0x1D17B),
)
_INVISIBLE_PLANE = range(0xE0000, 0xE1000)  # tags and the supplementary variation selectors
# The zero-width space marks the end of a word (Unicode, and the Penn Treebank tokenizer); the
# others are blank, but not white space for Python.
_BLANK = (0x200B, 0x2800, 0x3164, 0xFFA0)
# Ligatures and presentation forms, full- and half-width forms, letters in mathematical styles.
_STYLED: tuple[range, ...] = (range(0xFB00, 0xFE00), range(0xFE70, 0xFEFD), range(0xFF01, 0xFFEF))
_STYLED += (range(0x1D400, 0x1D800),)
# Scripts in which the two joiners choose the form of a letter: from Arabic to Myanmar, Khmer,
# Mongolian, and their later blocks.
_SHAPED: tuple[range, ...] = (range(0x600, 0x10A0), range(0x1780, 0x1D00), range(0xA800, 0xAC00))
_SHAPED += (range(0xFB50, 0xFE00), range(0xFE70, 0xFEFD), range(0x10A00, 0x12000))
_SHAPED += (range(0x1E900, 0x1E960),)


class _Visible(dict):
    """Translation table for ``str.translate`` to visible characters, filled on demand."""

    def __missing__(self, code: int) -> str | None:
        char = chr(code)
        mapped: str | None = char
        if code in _INVISIBLE or code in _INVISIBLE_PLANE:
            mapped = None
        elif code in _BLANK or code == 0x85:
            mapped = " "
        elif unicodedata.category(char) == "Cc":
            # As browsers do, take 0x80 to 0x9F for Windows-1252: U+0092 is an apostrophe there.
            visible = bytes([code]).decode("cp1252", "ignore") if code > 0x7F else ""
            mapped = visible if visible.isprintable() and visible else " "
        elif any(code in styled for styled in _STYLED):
            mapped = unicodedata.normalize("NFKC", char)
        self[code] = mapped
        return mapped


_VISIBLE = _Visible()


def clean_text(text: str) -> str:
    """Return the visible text of a caption.

    - HTML entities become characters (``&amp;``, ``&#39;``, ``&nbsp;``). HTML tags are removed;
      those that end a line or a block (``<br>``) become a space.
    - Characters without a glyph are removed: soft hyphens, marks of writing direction, word
      joiners, byte-order marks, variation selectors, tags. The zero-width space, no-break spaces,
      control characters and line ends become spaces. The zero-width joiner and non-joiner stay
      between letters of scripts that they shape (Persian, Hindi, ...) and, within emoji, between
      symbols.
    - Ligatures, full-width and half-width letters and letters in mathematical styles become plain
      letters.
    - The text is normalized to Unicode NFC, and white space to single spaces.

    Args:
        text: One caption.

    Returns:
        The text. Cleaning it again does not change it.
    """
    if text.isascii() and not _MARKUP.search(text):
        return " ".join(text.split())
    before = None
    while text != before:
        before = text
        if "<" in text:
            text = _BLOCK.sub(" ", _INLINE.sub("", text))
        if "&" in text:
            text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
        text = unicodedata.normalize("NFC", text.translate(_VISIBLE))
        text = " ".join(_JOINERS.sub(_shaping, text).split())
    return text


def _shaping(joiners: re.Match[str]) -> str:
    """Return one joiner if it changes the appearance of its neighbors, otherwise nothing."""
    around = joiners.string[: joiners.start()][-1:], joiners.string[joiners.end() :][:1]
    kinds = [unicodedata.category(char)[0] if char else "" for char in around]
    shaped = all(any(ord(char) in block for block in _SHAPED) for char in around if char)
    spelled = shaped and all(kind in ("L", "M") for kind in kinds)
    return joiners[0][0] if spelled or kinds == ["S", "S"] else ""
