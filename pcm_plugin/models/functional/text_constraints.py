"""Constraints on the text of a sequence whose tokens are pieces of words.

A phrase may be divided into pieces in several ways, and a piece may contain a phrase, so phrases
are found in the joined text instead of among the tokens.
"""

from collections.abc import Sequence
from typing import NamedTuple

from pcm_plugin.models.functional.constrained_search import Words, next_words, num_missing


class RequiredPhrase(NamedTuple):
    """Phrase that must occur.

    Attributes:
        text: Its text.
        words: Pieces by which the search completes it.
    """

    text: str
    words: Words


class TextConstraints:
    """Constraints on the joined text of pieces; see :class:`.Constraints`.

    Args:
        pieces: Text of each piece by its index; ``''`` for EOS.
        space: Character that stands for a space. A sequence counts as beginning with it.
        start: Pieces that a sequence starts with.
        include: Phrases that occur in a sequence.
        exclude: Texts that do not occur in a sequence.
        after_start: Pieces that must not follow the start directly, because they would change its
            last word. Defaults to none.
    """

    def __init__(
        self,
        pieces: Sequence[str],
        space: str,
        start: Words = (),
        include: Sequence[RequiredPhrase] = (),
        exclude: Sequence[str] = (),
        after_start: Sequence[int] = (),
    ) -> None:
        self.pieces = pieces
        self.space = space
        self.start = start
        self.include = include
        self.exclude = exclude
        self.after_start = after_start
        self._completing: dict[tuple[str, int], list[int]] = {}

    @property
    def num_words(self) -> int:
        """Number of pieces of the phrases that must occur."""
        return sum(len(phrase.words) for phrase in self.include)

    @property
    def is_contradictory(self) -> bool:
        """Whether the start, or a phrase that must occur, contains an excluded text."""
        required = [self._text(self.start), *(phrase.text for phrase in self.include)]
        return any(excluded in text for excluded in self.exclude for text in required)

    def num_missing(self, words: Words) -> int:
        """Return how many more pieces complete the phrases, if they do not overlap."""
        return num_missing(words, self._missing(words))

    def next_words(self, words: Words) -> set[int]:
        """Return the pieces that continue, or begin, a missing phrase."""
        return next_words(words, self._missing(words))

    def excluded_words(self, words: Words) -> list[int]:
        """Return the pieces that must not follow."""
        if not self.exclude and not self.start:
            return []
        text = self._text(words)
        found = [i for phrase in self.exclude for i in self._complete(phrase, text)]
        if self.start and len(words) == len(self.start):
            found += self.after_start
        return found

    def _complete(self, phrase: str, text: str) -> list[int]:
        """Return the pieces after which the text contains the phrase."""
        # Shorter beginnings of the phrase at the end of the text are ends of the longest one.
        begun = next(n for n in range(len(phrase) - 1, -1, -1) if text.endswith(phrase[:n]))
        key = phrase, begun
        if key not in self._completing:
            self._completing[key] = [
                i for i, piece in enumerate(self.pieces) if phrase in phrase[:begun] + piece
            ]
        return self._completing[key]

    def _missing(self, words: Words) -> list[Words]:
        if not self.include:
            return []
        text = self._text(words)
        return [phrase.words for phrase in self.include if phrase.text not in text]

    def _text(self, words: Words) -> str:
        text = "".join(self.pieces[word] for word in words)
        return text if text.startswith(self.space) else self.space + text
