"""Rules of Stanford CoreNLP 3.4.1 that split English text into Penn Treebank tokens.

At each position the rule with the longest match wins, including its lookahead; among matches of
equal length the first rule wins. A rule defines the token, what must follow it, and the form in
which it is written. Rules that only affect punctuation, which is dropped for scores, are left out,
for example those that find the direction of a straight quote.

``re`` uses the first alternative that matches, the program the longest one. Alternatives are
therefore ordered by length.

Source of the rules and tables: class PTBLexer in stanford-corenlp-3.4.1.jar, with whose automaton
they were compared state by state, and its published grammar.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from pcm_plugin.evaluation.ptb.characters import DIGITS, LETTERS, MARKS


class Rule(NamedTuple):
    """One kind of token.

    Attributes:
        name: Name of the kind.
        pattern: Group 1 is the token; the rest of the pattern is lookahead.
        write: Function that converts the matched text to the token; None to drop it.
    """

    name: str
    pattern: re.Pattern[str]
    write: Callable[[str], str] | None = str


def _any_case(words: str) -> str:
    """Match one of the words, which may be regular expressions, in upper or lower case."""
    return f"(?i:{'|'.join(words.split())})"


def _no_soft_hyphens(token: str) -> str:
    return token.replace("\xad", "") or "-" if "\xad" in token else token


def _no_spaces(token: str) -> str:
    return token.replace(" ", "\xa0")


_BRACKETS = str.maketrans(
    {"(": "-LRB-", ")": "-RRB-", "[": "-LSB-", "]": "-RSB-", "{": "-LCB-", "}": "-RCB-"}
)
_ROUND_BRACKETS = str.maketrans({"(": "-LRB-", ")": "-RRB-"})
_QUOTES = str.maketrans(
    {
        **dict.fromkeys("\x91‘‛‹", "`"),
        **dict.fromkeys("\x92’›", "'"),
        **dict.fromkeys("\x93“«", "``"),
        **dict.fromkeys("\x94”»", "''"),
    }
)
_MONEY = str.maketrans({"¢": "cents", "£": "#", **dict.fromkeys("\x80¤₠€", "$")})
_FRACTIONS = str.maketrans({"¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"})


def _ascii_quotes(token: str) -> str:
    return re.sub("&apos;", "'", token).translate(_QUOTES)


def _double_quote(token: str) -> str:
    # The program knows no other case of the entity.
    return "''" if token in ('"', "&quot;") else token


def _angle(token: str) -> str:
    return {"l": "<", "g": ">"}[token[1].lower()] if token[0] == "&" else token


def _plain_ampersand(token: str) -> str:
    return re.sub("(?i:&amp;)", "&", token)


def _dashes(token: str) -> str:
    return "--" if 3 <= len(token) <= 4 else token


# White space.
_SPACE_CHARS = r" \t\xa0\u2000-\u200a\u3000"
_SPACE = f"[{_SPACE_CHARS}]"
_NEWLINE_CHARS = r"\r\n\x0b\x0c\x85\u2028\u2029"
_GAP = rf"(?:\r\n|[{_SPACE_CHARS}{_NEWLINE_CHARS}])"

# Words.
_LETTER = f"[{LETTERS}]"
_ALNUM = f"[{LETTERS}{DIGITS}]"
_ENTITY = "&[aeiouAEIOU](?i:acute|grave|uml);"
_WORD_START = rf"(?:[{LETTERS}{MARKS}\xad]|{_ENTITY})"
_WORD_PART = rf"(?:[{LETTERS}{MARKS}\xad{DIGITS}]|{_ENTITY})"
_RUN = f"{_WORD_START}{_WORD_PART}*"
_WORD = f"{_RUN}(?:[.!?]{_RUN})*"

# Apostrophes and what they shorten.
_APOSTROPHE = r"(?:['\x92’]|(?i:&apos;))"
_ANY_APOSTROPHE = r"(?:['`\x91\x92‘’‛]|(?i:&apos;))"
_CLITIC = f"{_APOSTROPHE}(?:[msdMSD]|(?i:re|ve|ll))"
_NOT = f"[nN]{_ANY_APOSTROPHE}[tT]"
_BEFORE_NOT = r"[A-Za-z\xad]*[A-MO-Za-mo-z]\xad*"
_WITH_APOSTROPHE = "|".join(
    (
        f"[A-HJ-XZn]{_ANY_APOSTROPHE}{_LETTER}{{2,}}",
        f"{_LETTER}+[aeiouyAEIOUY]{_ANY_APOSTROPHE}[aeiouA-Z]{_LETTER}*",
        f"{_APOSTROPHE}[nN]{_APOSTROPHE}?",
        f"{_APOSTROPHE}{_any_case('em till? cause')}",
        f"{_APOSTROPHE}[2-9]0{_any_case('s')}",
        f"{_any_case('dunkin somethin ol')}{_APOSTROPHE}",
        f"[lLdDjJ]{_APOSTROPHE}",
        f"[oO]{_ANY_APOSTROPHE}[oO]",
        _any_case(r"cont'd\.? nor'easter c'mon e'er s'mores ev'ry li'l nat'l"),
    )
)

# Numbers.
_DIGIT = f"[{DIGITS}]"
_IN_NUMBER = r"[.:,\xad\u066b\u066c]"
_NUMBER = rf"[-+]?(?:{_DIGIT}+(?:{_IN_NUMBER}{_DIGIT}+)*|(?:{_IN_NUMBER}{_DIGIT}+)+)"
_DATE = f"{_DIGIT}{{1,2}}[-/]{_DIGIT}{{1,2}}[-/]{_DIGIT}{{2,4}}"
_FRACTION = rf"(?:{_DIGIT}{{1,4}}[- \xa0])?{_DIGIT}{{1,4}}(?:\\?/|\u2044){_DIGIT}{{1,4}}"
_RAISED = r"[\u207a\u207b\u208a\u208b]?(?:[\xb2\xb3\xb9\u2070\u2074-\u2079]+|[\u2080-\u2089]+)"
_AREA = r"(?:\([0-9]{2,3}\)[ \xa0]?|(?:\+\+?)?(?:[0-9]{2,4}[- \xa0])?[0-9]{2,4}[- \xa0])"
_PHONE = (
    rf"{_AREA}[0-9]{{3,4}}[- \xa0]?[0-9]{{3,5}}"
    r"|(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}"
)
_MONEY_SIGN = r"[\x80\xa2-\xa5\u060b\u0e3f\u20a0\u20a4\u20ac\uffe0\uffe1\uffe5\uffe6]"

# Abbreviations. Some are words too in lower case, and count only with a capital.
_MONTHS = "jan feb mar apr jun jul aug sept? oct nov dec"
_DAYS = "mon tues? wed thu(?:rs)? fri"
_STATES = (
    "ala ariz calif colo conn ct dak fla ga ind kans? ky md mich minn mo mont neb nev okla penn"
    " tenn va vt wisc? wyo"
)
_STATES_WITH_CAPITAL = (
    "A(?i:z|rk)|D(?i:el)|I(?i:ll)|L(?i:a)|M(?i:ass|iss)|O(?i:re)|P(?i:a)|T(?i:ex)|W(?i:ash)"
)
_FIRMS = r"inc cos? corp pp?t(?-i:[ye])s? ltd plc rt bancorp bhd assn univ intl sys"
_OTHERS = r"tel est ext sq jr sr bros (?:ed|ph)\.d esq rd blvd bldg etc al seq"
# A.k.a. has its place among the titles for a Kelvin sign; with a k it is initials.
_TITLES = (
    r"mrs? ms drs? profs? sens? reps? attys? lt col gen messrs govs? adm rev maj sgt cpl pvt capt"
    r" ste? ave pres lieut hon brig co?mdr pfc spc supts? det mt ft adj adv asst assoc ens insp"
    r" mlle mme msgr sfc invt elec natl m(?-i:[ft])g dept vs alex wm jos cie cf treas ph"
    r" a\.(?-i:\u212a)\.a"
)
_JOINED_COUNTRIES = r"(?i:(?:canada|sino|korean|eu|japan|non)-u\.s|u\.s\.-(?:u\.k|u\.s\.s\.r))"
_INITIALS = rf"(?:{_JOINED_COUNTRIES}|[A-Za-z](?:\.[A-Za-z])*)"
_SEVERAL_INITIALS = rf"(?:{_JOINED_COUNTRIES}|[A-Za-z](?:\.[A-Za-z])+)"
_ABBREVIATION = (
    rf"(?:{_any_case(f'{_MONTHS} {_DAYS} {_STATES} {_FIRMS} {_OTHERS}')}|{_STATES_WITH_CAPITAL})\."
)
_TITLE = rf"(?:{_any_case(_TITLES)}|M(?i:iss)|{_INITIALS})\."
_BEFORE_NUMBER = _any_case("ca figs? prop nos? art bldg pp op") + r"\."

# Words joined by hyphens, slashes and ampersands.
_FRENCH = f"(?:[dDoOlL]{_ANY_APOSTROPHE}{_ALNUM})?"
_HYPHENATED = rf"{_FRENCH}{_ALNUM}+(?:[-_\u058a\u2010\u2011]{_FRENCH}{_ALNUM}+)*"
_HYPHENATED_NUMBERS = (
    r"[A-Za-z0-9][A-Za-z0-9.,\xad]*"
    rf"(?:-(?:{_SEVERAL_INITIALS}\.|[A-Za-z0-9\xad]+))+"
)
_SLASHED = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}"
_AMPERSAND = "&(?i:amp;)?"
_JOINED_CAPITALS = rf"[A-Z]+(?:(?:\+|{_AMPERSAND})[A-Z]+)+"
_SPECIAL = "|".join(
    (
        "-(?i:[lr](?:rb|cb|sb))-",
        r"(?i:c\.d\.s|pro-|anti-)",
        f"(?i:s){_AMPERSAND}(?i:p-500|ls)",
        f"(?i:cap){_APOSTROPHE}[nN]",
        f"[cC]{_APOSTROPHE}(?i:est)",
    )
)

# The web. The range from comma to underscore in a host is the program's own slip.
_TAG_NAME = r"[A-Za-z][A-Za-z0-9_:.\-]*"
_ATTRIBUTE = rf"{_TAG_NAME}(?: *= *(?:'[^']*'|\"[^\"]*\"))?"
_TAG = rf"<(?:[!?][A-Za-z\-][^>\r\n]*|{_TAG_NAME}(?: +{_ATTRIBUTE})* */?|/{_TAG_NAME}) *>"
_URL = r"(?i:https?)://[^ \t\n\f\r\"<>|(){}]+[^ \t\n\f\r\"<>|.!?(){},\-]"
_HOST = (
    r"(?:(?i:www)\.(?:[^ \t\n\f\r\"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}"
    r"|(?:[^ \t\n\f\r\"`'<>|.!?(){},-_$]+\.)+(?i:com|net|org|edu))"
)
# A host may hold slashes, so the longest host is not that of the longest address.
_WEB_ADDRESS = rf"{_HOST}/[^ \t\n\f\r\"<>|()]+[^ \t\n\f\r\"<>|.!?(){{}},-]|{_HOST}"
_MAIL_PART = r"[^ \t\n\f\r\"<>|(){}.\xa0]+"
_MAIL_ADDRESS = (
    r"(?:(?i:&lt;)|<)?[a-zA-Z0-9][^ \t\n\f\r\"<>|()\xa0{}]*"
    rf"@(?:{_MAIL_PART}\.)*{_MAIL_PART}(?:(?i:&gt;)|>)?"
)
_TWITTER = f"@[a-zA-Z_][a-zA-Z_0-9]*|#{_WORD_START}+"
_FILE_TYPES = (
    "bat bmp c class cgi cpp dll docx? exe gif gz h html? jar java jpe?g mov mp3 pdf php pl png ppt"
    " ps py sql tar txt wav x xml zip"
)
_FILE = rf"{_WORD_PART}+(?:\.{_WORD_PART}+)*\.{_any_case(_FILE_TYPES)}"

# Smileys and signs.
_SMILEY = r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]]"
_SIDEWAYS_EYES = r"[-\^x=~<>']"
_UPRIGHT_SMILEY = "|".join(
    (
        # Meant as a class, but read by the program as characters and "all up to the next <".
        r"[\^x=~<>]\.\[\^[xX]=[^<]*<>\]",
        f"{_SIDEWAYS_EYES}_{_SIDEWAYS_EYES}",
        rf"\({_SIDEWAYS_EYES}[_.]?{_SIDEWAYS_EYES}\)",
        r"\([\^x=~<>']-[\^x=~<>'`]\)",
    )
)
_SENTENCE_MARK = r"[,;:\u3001]"
_SIGNS = (
    r"%\^|~\\¡¦-©¬®¯°±´¶·¸¿×÷\u037e\u0387\u0589\u05be\u05c0\u05c3\u05c6\u05f3\u05f4\u0600-\u0603"
    r"\u0606-\u060a\u060c\u0614\u061b\u061e\u061f\u066a\u066d\u06d4\u0700-\u070d\u07f6-\u07f8\u0964"
    r"\u0965\u0e4f\u1fbd\u2016\u2017\u2020-\u2023\u2030-\u2038\u203b\u203e-\u2042\u2044"
    r"\u207a-\u207e\u208a-\u208e\u2100-\u214f\u2190-\u2bff\u3002\u3012\u30fb\uff01-\uff0f"
    r"\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
)
_QUOTATION = rf"[`\x91-\x94‘-‟‹›«»]{{1,2}}|''|{_APOSTROPHE}"

# A one-letter abbreviation before one of these is a letter that ends a sentence.
_SENTENCE_STARTS = (
    "A(?i:|bout|ccording|dditionally|fter|n|s|t)|B(?i:ut)|E(?i:arlier)|H(?i:e|er|ere|owever)"
    "|I(?i:f|n|t)|L(?i:ast)|M(?i:any|ore)|M(?i:r|s)\\.|N(?i:ow)|O(?i:nce|ne|ther|ur)"
    "|S(?i:he|ince|o|ome|uch)|T(?i:hat|he|heir|hen|here|hese|hey|his)|W(?i:e|hen|hile|hat)"
    "|Y(?i:et|ou)"
)


def _rule(
    name: str, token: str, write: Callable[[str], str] | None = str, *, then: str = ""
) -> Rule:
    """Put a rule together.

    Args:
        name: As in ``Rule``.
        token: Regular expression of the token.
        write: As in ``Rule``.
        then: Regular expression of what must follow.
    """
    return Rule(name, re.compile(f"({token})(?:{then})"), write)


RULES = (
    _rule("language", r"[cC](?:\+\+|#)|[fF]#"),
    _rule("cannot", "(?i:can)", then="(?i:not)"),
    _rule("gonna", "(?i:gon|wan)", then="(?i:na)"),
    _rule("gotta", "(?i:got)", then="(?i:ta)"),
    _rule("lemme", "(?i:lem|gim)", then="(?i:me)"),
    _rule("'twas", "'[tT]", then="(?i:was)"),
    _rule("'tis", "'[tT]", then="(?i:is)"),
    _rule("tag", _TAG, _no_spaces),
    _rule("dash", r"&(?i:md|mdash|ndash);|[\x96\x97\u2013-\u2015]", lambda _: "--"),
    _rule("&amp;", "(?i:&amp;)", lambda _: "&"),
    _rule("entity", "&(?i:ht|tl|ur|lr|qc|ql|qr|odq|cdq|#[0-9]+);"),
    _rule("word before clitic", _WORD, _no_soft_hyphens, then=_CLITIC),
    _rule("word before n't", _BEFORE_NOT, _no_soft_hyphens, then=_NOT),
    _rule("word", _WORD, _no_soft_hyphens),
    _rule("word with apostrophe", _WITH_APOSTROPHE),
    _rule("y'", f"[yY]{_APOSTROPHE}", then=_LETTER),
    _rule("url", f"{_URL}|{_WEB_ADDRESS}"),
    _rule("e-mail", _MAIL_ADDRESS),
    _rule("twitter", _TWITTER),
    _rule("clitic", _CLITIC, _ascii_quotes, then="[^A-Za-z]"),
    _rule("date", _DATE),
    _rule("number", _NUMBER, _no_soft_hyphens),
    _rule("raised number", _RAISED),
    _rule("fraction", _FRACTION, _no_spaces),
    _rule("fraction sign", "[¼½¾\u2153-\u215e]", lambda token: token.translate(_FRACTIONS)),
    _rule("special", _SPECIAL, _plain_ampersand),
    _rule("slashed", _SLASHED),
    _rule("dollar", r"[A-Z]*\$"),
    _rule("money", _MONEY_SIGN, lambda token: token.translate(_MONEY)),
    _rule("final letter", "[A-Za-z]", then=rf"\.{_GAP}+(?:{_SENTENCE_STARTS}|{_TAG}){_GAP}"),
    _rule("abbreviation before number", _BEFORE_NUMBER, then=f"{_GAP}?{_DIGIT}"),
    _rule("pty. ltd.", r"(?:(?i:pt)[eyEY]|(?i:co))\.", then=f"{_SPACE}(?i:ltd|lim)"),
    _rule("abbreviation", _ABBREVIATION, then=r"[\0-\uffff]{2}"),
    _rule("last abbreviation", _ABBREVIATION),
    _rule("title", _TITLE),
    _rule("initials", _INITIALS, then=_GAP),
    _rule("'99", f"{_APOSTROPHE}[0-9][0-9]", then=_GAP),
    _rule("file", _FILE, then=f"{_GAP}|[.?!,]"),
    _rule("word with dot", rf"{_WORD}\.", _no_soft_hyphens, then=_SENTENCE_MARK),
    _rule("phone", _PHONE, lambda token: _no_spaces(token).translate(_ROUND_BRACKETS)),
    _rule("double quote", '"|(?i:&quot;)', _double_quote),
    _rule("angle", "[<>]|(?i:&[lg]t;)", _angle),
    _rule("smiley", _SMILEY, lambda token: token.translate(_ROUND_BRACKETS), then="[^A-Za-z0-9]"),
    _rule("upright smiley", _UPRIGHT_SMILEY, lambda token: token.translate(_ROUND_BRACKETS)),
    _rule("bracket", r"[()\[\]{}]", lambda token: token.translate(_BRACKETS)),
    _rule("hyphens", "-+", _dashes),
    _rule("dots", r"\.{3,5}|(?:\.[ \xa0]){2,4}\.|[\x85…]", lambda _: "..."),
    _rule("marks", r"@+|#+|_+|\*+|(?:\\\*){1,3}|[?!]+|<<|>>"),
    _rule("mark", rf"[.=/+&{_SIGNS}]|{_SENTENCE_MARK}"),
    _rule(
        "hyphenated with dot", rf"{_HYPHENATED_NUMBERS}\.", _no_soft_hyphens, then=_SENTENCE_MARK
    ),
    _rule("hyphenated with numbers", _HYPHENATED_NUMBERS, _no_soft_hyphens),
    _rule("joined with dot", rf"{_HYPHENATED}\.", then=_SENTENCE_MARK),
    _rule("joined", _HYPHENATED),
    _rule("capitals with dot", rf"{_JOINED_CAPITALS}\.", _plain_ampersand, then=_SENTENCE_MARK),
    _rule("capitals", _JOINED_CAPITALS, _plain_ampersand),
    _rule("opening quote", "'", then=r"[A-Za-z][^ \t\n\r\xa0]"),
    _rule("n't or last clitic", f"{_NOT}|{_CLITIC}", _ascii_quotes),
    _rule("quotes", _QUOTATION, _ascii_quotes),
    _rule("space", rf"{_SPACE}+|\r\n|[{_NEWLINE_CHARS}]|(?i:&nbsp;)", None),
    _rule("unknown", r"[\0-\uffff]", None),
)
"""All rules, in their order."""
