"""PTB tokenizer of COCO's evaluation in pure Python.

pycocoevalcap runs the Penn Treebank tokenizer of Stanford CoreNLP 3.4.1 with the options
``-preserveLines -lowerCase``, splits each printed line at spaces and drops punctuation.
``ptb_tokenize`` returns the same words, with these exceptions, where the result of the Java program
depends on more than the caption:

* The program reads all captions as one text with one caption per line, and looks beyond the end of
  a line: "no." keeps its period if the next caption begins with a digit, "vitamin c." loses it if
  the next caption begins with "The" or some other words, and a tag with an unclosed quote continues
  in the next caption. Here a caption is never affected by the next one.
* The last caption of a run has no line end, and the program splits a smiley, "'99" or a clitic such
  as "'ll" at its end. Here each caption has a line end.
* Line ends other than line feeds, such as carriage return, form feed and U+2028, split a caption in
  two lines. pycocoevalcap then assigns the second line to the next caption and all later lines to
  wrong captions. Here all lines belong to their caption.
* pycocoevalcap fails on a lone surrogate. Here it is dropped, like all characters that the program
  does not know.

It is hand-written because the alternative is a Java process for each evaluation.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from pcm_plugin.evaluation.ptb.lowercase import lower
from pcm_plugin.evaluation.ptb.rules import RULES

PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", *".?!,:;-", "--", "..."]
)
"""Tokens that pycocoevalcap drops.

Brackets are not among them, since they are lower-cased before.
"""

_MATCHERS = [(rule.pattern.match, rule.write) for rule in RULES]
# No rule that starts in such a chunk looks beyond the space after it, so the tokens of a chunk do
# not depend on its context and can be cached.
_CHUNK = re.compile(r" *((?:[A-Za-z'-]+,?|,)(?=[ \n])|[A-Za-z'-]*\.(?=\n))")
_BEYOND_BASIC_PLANE = re.compile("[\U00010000-\U0010ffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def ptb_tokenize(caption: str) -> list[str]:
    """Tokenize one caption.

    Args:
        caption: Any text. A line feed counts as a space.

    Returns:
        Lower-case tokens without punctuation.
    """
    # Java strings are UTF-16: characters outside the basic plane are two code units.
    line = _BEYOND_BASIC_PLANE.sub(_surrogates, caption.replace("\n", " "))
    # pycocoevalcap strips the line before it splits it, including no-break spaces.
    tokens = " ".join(_lex(line + "\n")).rstrip().split(" ")
    return [token for token in tokens if token and token not in PUNCTUATION]


def _lex(text: str) -> Iterator[str]:
    """Yield the lower-case tokens of a line, including punctuation."""
    # The line feed at the end is not a token.
    start, end = 0, len(text) - 1
    while start < end:
        if chunk := _CHUNK.match(text, start):
            yield from _lex_chunk(chunk[1])
            start = chunk.end()
        else:
            token, start = _longest(text, start)
            if token is not None:
                yield token


@lru_cache(maxsize=1 << 16)
def _lex_chunk(chunk: str) -> tuple[str, ...]:
    start, tokens = 0, []
    while start < len(chunk):
        token, start = _longest(chunk + "\n", start)
        if token is not None:
            tokens.append(token)
    return tuple(tokens)


def _longest(text: str, start: int) -> tuple[str | None, int]:
    """Return the longest token at ``start`` (None if it is dropped) and its end."""
    farthest, best = -1, None
    for match, write in _MATCHERS:
        # Among matches of equal length the first rule wins.
        if (candidate := match(text, start)) and candidate.end() > farthest:
            farthest, best = candidate.end(), (candidate, write)
    assert best is not None, "the last rule matches any character"
    token, write = best
    return None if write is None else _lower(write(token[1])), token.end(1)


def _surrogates(character: re.Match[str]) -> str:
    high, low = divmod(ord(character[0]) - 0x10000, 0x400)
    return chr(0xD800 + high) + chr(0xDC00 + low)


def _lower(token: str) -> str:
    if _SURROGATE.search(token):
        token = token.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return lower(token)
