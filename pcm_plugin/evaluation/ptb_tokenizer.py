"""Captions into the tokens of COCO's scores, as pycocoevalcap's PTBTokenizer, without Java.

pycocoevalcap runs the Penn Treebank tokenizer of Stanford CoreNLP 3.4.1 with the options
`-preserveLines -lowerCase`, cuts each line it prints at the spaces and drops punctuation.
`ptb_tokenize` gives the same words.

A caption alone does not always decide:

* The program reads all captions as one text, a line each, and looks past the end of a line: "no."
  keeps its dot there if the next caption begins with a digit, "vitamin c." loses it if the next one
  begins with "The" or some other words, and a tag with an attribute whose quote is not closed goes
  on in the next caption. Here nothing of the kind follows.
* After the last caption of a run no end of line follows, and the program cuts a smiley, "'99" and
  a clitic such as "'ll" at its very end apart. Here each caption ends with its line.
* Ends of lines other than line feeds, as carriage return, form feed and U+2028, make two lines of a
  caption. pycocoevalcap takes the first for this caption, the second for the next one, and is off
  by one from there. Here all of a caption's lines count as its own.
* A lone surrogate makes pycocoevalcap fail. Here it is dropped, as all characters that the program
  does not know.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from pcm_plugin.evaluation.ptb.lowercase import lower
from pcm_plugin.evaluation.ptb.rules import RULES

PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", *".?!,:;-", "--", "..."]
)
"""What pycocoevalcap drops. The program has put brackets in lower case by then, so they stay."""

_MATCHERS = [(rule.pattern.match, rule.write) for rule in RULES]
# No rule that begins in such a chunk sees farther than the space behind it, and after the last one
# nothing comes; so the tokens of a chunk are the same wherever it stands, and can be remembered.
_CHUNK = re.compile(r" *((?:[A-Za-z'-]+,?|,)(?=[ \n])|[A-Za-z'-]*\.(?=\n))")
_BEYOND_BASIC_PLANE = re.compile("[\U00010000-\U0010ffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def ptb_tokenize(caption: str) -> list[str]:
    """Tokenize one caption.

    Args:
        caption: Any text; a line feed counts as a space.

    Returns:
        Its tokens in lower case, without punctuation.
    """
    # Java's characters are UTF-16: two for each one outside of the basic plane.
    line = _BEYOND_BASIC_PLANE.sub(_surrogates, caption.replace("\n", " "))
    # pycocoevalcap strips the line before it cuts it, of no-break spaces too.
    tokens = " ".join(_lex(line + "\n")).rstrip().split(" ")
    return [token for token in tokens if token and token not in PUNCTUATION]


def _lex(text: str) -> Iterator[str]:
    """All tokens of a line, punctuation too, in lower case."""
    # Of the line feed at the end alone no token is made.
    place, end = 0, len(text) - 1
    while place < end:
        if chunk := _CHUNK.match(text, place):
            yield from _remembered(chunk[1])
            place = chunk.end()
        else:
            token, place = _longest(text, place)
            if token is not None:
                yield token


@lru_cache(maxsize=1 << 16)
def _remembered(chunk: str) -> tuple[str, ...]:
    place, tokens = 0, []
    while place < len(chunk):
        token, place = _longest(chunk + "\n", place)
        if token is not None:
            tokens.append(token)
    return tuple(tokens)


def _longest(text: str, place: int) -> tuple[str | None, int]:
    """The token at a place, None if it is to be dropped, and where it ends."""
    farthest, best = -1, None
    for match, write in _MATCHERS:
        # Only a rule that reaches farther than those before it wins: the first of equals stays.
        if (found := match(text, place)) and found.end() > farthest:
            farthest, best = found.end(), (found, write)
    assert best is not None, "the last rule matches any character"
    found, write = best
    return None if write is None else _lower(write(found[1])), found.end(1)


def _surrogates(character: re.Match[str]) -> str:
    high, low = divmod(ord(character[0]) - 0x10000, 0x400)
    return chr(0xD800 + high) + chr(0xDC00 + low)


def _lower(token: str) -> str:
    if _SURROGATE.search(token):
        token = token.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return lower(token)
