"""Guess the encoding of text that is not UTF-8, to name it in an error."""

import re
from typing import NamedTuple

BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": "utf-8",
    b"\xff\xfe\x00\x00": "utf-32-le",
    b"\x00\x00\xfe\xff": "utf-32-be",
    b"\xff\xfe": "utf-16-le",
    b"\xfe\xff": "utf-16-be",
    b"\x84\x31\x95\x33": "gb18030",
}
"""Python's name of an encoding by its byte-order mark; longer marks first."""

_HIGH = re.compile(rb"[\x80-\xff]+")
_PAIR = re.compile(rb"[\x81-\xfe][\x30-\xff]|[\x00-\x7f]", re.DOTALL)
# ASCII, Latin to Arabic, Indic scripts to Georgian, general punctuation, kana, hanzi, Hangul.
_BLOCKS: tuple[range, ...] = (
    range(0x09, 0x0E),
    range(0x20, 0x7F),
    range(0xA0, 0x700),
    range(0x900, 0x1100),
)
_BLOCKS += (range(0x2010, 0x2040), range(0x3000, 0x3100), range(0x4E00, 0xA000))
_BLOCKS += (range(0xAC00, 0xD7B0), range(0xFF00, 0xFFF0))
# Letters and signs beyond ASCII that are frequent in the languages that use an encoding.
_WESTERN = "áàâãäåæçéèêëíìîïñóòôõöøœúùûüßÿ\u2018\u2019\u201c\u201d\u2013\u2014\u2026«»¿¡°½£€©®´·"
_LATIN = {
    "cp1252": ("Windows-1252 or Latin-1", _WESTERN),
    "cp1250": ("Windows-1250 (Central European)", "ąćęłńóśźżáčďéěíňřšťúůýžőűöüâăîșțäôĺľŕđ"),
    "cp1254": ("Windows-1254 (Turkish)", "ıışğçöüâîi\u0307"),
    "mac_roman": ("Mac Roman", _WESTERN),
    "cp850": ("code page 850 (DOS)", _WESTERN),
}
_OTHER_SCRIPTS = {
    "cp1251": ("Windows-1251 (Cyrillic)", "оеаинтсрвлкмдпуя"),
    "koi8_r": ("KOI8-R (Cyrillic)", "оеаинтсрвлкмдпуя"),
    "cp1253": ("Windows-1253 (Greek)", "αοιετσνηυρπκμλάόίέήςύ"),
    "cp1255": ("Windows-1255 (Hebrew)", "יוהלארתבמשנםדחפק"),
    "cp1256": ("Windows-1256 (Arabic)", "اليمونرتبةعدسفهكحقأ"),
    "cp874": ("Windows-874 (Thai)", "านรอกเงมยลวดทส่้ัีิะคปบ"),
}
_FEW = 0.02
_ENOUGH = 0.3


class EncodingGuess(NamedTuple):
    """A probable encoding.

    Attributes:
        name: Common name.
        codec: Name in Python.
    """

    name: str
    codec: str


def guess_wide_encoding(data: bytes) -> EncodingGuess | None:
    """Recognize UTF-16 and UTF-32 without a byte-order mark, by where its zero bytes are.

    Args:
        data: The beginning of a file.
    """
    if b"\x00" not in data:
        return None
    zeros = [data[i::4].count(0) * 4 / len(data) for i in range(4)]
    if min(zeros[2], zeros[3]) > 1 - _FEW > zeros[0]:
        return EncodingGuess("UTF-32 (little-endian)", "utf-32-le")
    if min(zeros[0], zeros[1]) > 1 - _FEW > zeros[3]:
        return EncodingGuess("UTF-32 (big-endian)", "utf-32-be")
    shares = {
        codec: _share_of_known_characters(data, codec) for codec in ("utf-16-le", "utf-16-be")
    }
    codec = max(shares, key=shares.__getitem__)
    if shares[codec] < 0.95:
        return None
    return EncodingGuess(f"UTF-16 ({'little' if codec == 'utf-16-le' else 'big'}-endian)", codec)


def _share_of_known_characters(data: bytes, codec: str) -> float:
    """Share of characters that are of the scripts in which most text is."""
    text = data[: len(data) // 2 * 2].decode(codec, "replace")
    return sum(any(ord(char) in block for block in _BLOCKS) for char in text) / max(len(text), 1)


def guess_encoding(data: bytes) -> EncodingGuess | None:
    """Guess which encoding text is in that is not valid UTF-8.

    Args:
        data: One or more lines of it.

    Returns:
        The most probable encoding; None if nothing speaks for one.
    """
    wide = guess_wide_encoding(data)
    if wide is not None:
        return wide
    if re.search(rb"\x1b\$[@B]", data):
        return EncodingGuess("ISO-2022-JP", "iso2022_jp")
    runs = [len(run) for run in _HIGH.findall(data)]
    if not runs:
        return None
    return _guess_two_byte(data, runs) or _guess_one_byte(data, runs)


def _guess_two_byte(data: bytes, runs: list[int]) -> EncodingGuess | None:
    """Chinese, Japanese and Korean, by the blocks in which their frequent characters lie."""
    pairs = [pair for pair in _PAIR.findall(data) if len(pair) == 2]
    # European letters stand alone between letters of ASCII, those of East Asia in rows.
    if not pairs or (2 * runs.count(1) > len(runs) and max(runs) < 4):
        return None
    leads = [pair[0] for pair in pairs]
    full = [pair[0] for pair in pairs if pair[1] >= 0xA1]

    def share(first: int, last: int, among: list[int]) -> float:
        return sum(first <= lead <= last for lead in among) / len(pairs)

    odd = sum(run % 2 for run in runs) / len(runs)
    candidates = (
        ("Shift JIS", "cp932", share(0x82, 0x83, leads) > _ENOUGH),
        ("EUC-JP", "euc_jp", share(0xA4, 0xA5, full) > _ENOUGH and odd < _ENOUGH),
        ("EUC-KR", "cp949", len(pairs) > 9 and share(0xB0, 0xC8, full) > 0.95 and b" " in data),
        ("GBK or GB18030", "gb18030", share(0xB0, 0xD7, full) > 0.6 and odd < _ENOUGH),
        ("Big5", "big5", share(0xA4, 0xC6, leads) > 0.6 and len(full) < 0.9 * len(pairs)),
        ("GBK or GB18030", "gb18030", odd < _FEW),
    )
    for name, codec, likely in candidates:
        if likely and _decodes(data, codec):
            return EncodingGuess(name, codec)
    return None


def _guess_one_byte(data: bytes, runs: list[int]) -> EncodingGuess | None:
    """European and West Asian scripts, by the letters that are frequent in their languages."""
    high = b"".join(_HIGH.findall(data))
    scripts = _OTHER_SCRIPTS if sum(runs) > 2 * len(runs) else _LATIN

    def share(codec: str) -> float:
        letters = scripts[codec][1]
        return sum(char in letters for char in high.decode(codec, "replace").lower()) / len(high)

    codec = max(scripts, key=share)
    return EncodingGuess(scripts[codec][0], codec) if share(codec) > 0.5 else None


def _decodes(data: bytes, codec: str) -> bool:
    """Whether data are valid in an encoding, except for a character cut off at the end."""
    for cut in range(4):
        try:
            data[: len(data) - cut].decode(codec)
        except UnicodeDecodeError:
            continue
        return True
    return False
