"""Coverage of a corpus by a vocabulary, with a limit for training."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from pcm_plugin.errors import UserError
from pcm_plugin.formats.caption_vocabulary import CaptionVocabulary
from pcm_plugin.formats.vocabulary import UNKNOWN

MAX_UNKNOWN_CAPTIONS = 0.05
"""Default of the maximum share of captions without a known word."""

_NUM_EXAMPLES = 3


class VocabularyCoverageError(UserError):
    """Too many captions have no word that is in the vocabulary."""


@dataclass
class VocabularyCoverage:
    """Coverage of a corpus by a vocabulary.

    The words of a subword vocabulary are its pieces, and the characters that it lacks. ``UNK`` does
    not count as a known word. From a caption without known words, a captioner learns
    nothing except to stop at once.

    Attributes:
        captions: Number of captions.
        unknown_captions: Number of captions without a known word, including those without words.
        words: Number of words of all captions.
        unknown_words: Number of words that are not in the vocabulary.
        examples: The first captions without a known word.
        lengths: Number of captions by their number of known words.
        unit: Name of the words in messages, such as ``'pieces'``.
    """

    captions: int = 0
    unknown_captions: int = 0
    words: int = 0
    unknown_words: int = 0
    examples: list[str] = field(default_factory=list)
    lengths: Counter[int] = field(default_factory=Counter)
    unit: str = "words"

    @classmethod
    def measure(
        cls, vocabulary: CaptionVocabulary, captions: Iterable[str]
    ) -> "VocabularyCoverage":
        """Count the known and unknown words of all captions.

        Args:
            vocabulary: The vocabulary.
            captions: The corpus, read once.
        """
        coverage = cls(unit=vocabulary.unit)
        for caption in captions:
            words = vocabulary.split(caption)
            unknown = sum(word not in vocabulary or word == UNKNOWN for word in words)
            coverage.captions += 1
            coverage.words += len(words)
            coverage.unknown_words += unknown
            coverage.lengths[len(words) - unknown] += 1
            if unknown == len(words):
                coverage.unknown_captions += 1
                if len(coverage.examples) < _NUM_EXAMPLES:
                    coverage.examples.append(caption)
        return coverage

    def check(self, max_unknown_captions: float, source: str, fix: str) -> None:
        """Check that not too many captions are without a known word.

        Args:
            max_unknown_captions: Maximum share of such captions, from 0 to 1.
            source: Source of the captions, for the message.
            fix: Advice, for the message.

        Raises:
            VocabularyCoverageError: If there are more. The message names count, share, examples
                and ``fix``.
            UserError: If the limit is out of range.
        """
        if not 0 <= max_unknown_captions <= 1:
            raise UserError(
                f"max_unknown_captions must be between 0 and 1, got {max_unknown_captions}"
            )
        if self.unknown_captions > max_unknown_captions * self.captions:
            examples = ", ".join(map(repr, self.examples))
            raise VocabularyCoverageError(
                f"{source}: {self.unknown_captions:,} of {self.captions:,} captions "
                f"({_percent(self.unknown_captions, self.captions)}) have no "
                f"{self.unit.removesuffix('s')} that is in the vocabulary, such as {examples}; the "
                f"limit is max_unknown_captions={max_unknown_captions}. {fix}. Captions in a "
                "script without spaces need a subword vocabulary (--kind subword)"
            )

    def max_len(self, share: float = 0.99) -> int:
        """Return the ``max_len`` at which a share of the captions fits with the end token.

        Args:
            share: Smallest share of captions that are not truncated, from 0 to 1. Defaults to 0.99.
        """
        fitting = 0
        for length in sorted(self.lengths):
            fitting += self.lengths[length]
            if fitting >= share * self.captions:
                return length + 1
        return 1

    def __str__(self) -> str:
        """Return one line with both counts."""
        return (
            f"{self.unknown_words:,} of {self.words:,} {self.unit} "
            f"({_percent(self.unknown_words, self.words)}) are not in the vocabulary; "
            f"{self.unknown_captions:,} of {self.captions:,} captions have no known "
            f"{self.unit.removesuffix('s')}"
        )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.1f} %"
