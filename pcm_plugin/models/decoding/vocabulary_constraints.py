"""Constraints on captions in tokens of a vocabulary."""

import regex

from pcm_plugin.errors import UserError
from pcm_plugin.formats.caption_vocabulary import EOS_ID, CaptionVocabulary
from pcm_plugin.formats.subword_vocabulary import SPACE, SubwordVocabulary
from pcm_plugin.formats.text.scripts import begins_unspaced
from pcm_plugin.formats.vocabulary import Vocabulary
from pcm_plugin.models.decoding.config import DecodingConfig
from pcm_plugin.models.functional.constrained_search import (
    Constraints,
    WordConstraints,
    check_constraints,
)
from pcm_plugin.models.functional.text_constraints import RequiredPhrase, TextConstraints

_INSIDE = regex.compile(r"[\p{L}\p{N}\p{M}\u200c\u200d]")


def vocabulary_constraints(
    vocabulary: CaptionVocabulary, decoding: DecodingConfig
) -> Constraints | None:
    """Return the constraints in tokens of a vocabulary, or None if there are none.

    With a subword vocabulary, phrases are found in the text of captions. In scripts with spaces, a
    phrase begins at the start of a word, and its last word may continue: ``exclude=['cat']``
    excludes ``cats`` and ``catalog``, and ``include=['cat']`` is met by them.

    Raises:
        UserError: If a word that must occur is not in the vocabulary, or the constraints cannot be
            met.
    """
    if not decoding.has_constraints:
        return None
    constraints: Constraints
    if isinstance(vocabulary, SubwordVocabulary):
        constraints = _text_constraints(vocabulary, decoding)
    else:
        assert isinstance(vocabulary, Vocabulary)
        constraints = _word_constraints(vocabulary, decoding)
    check_constraints(constraints, decoding.max_len)
    return constraints


def _word_constraints(vocabulary: Vocabulary, decoding: DecodingConfig) -> WordConstraints:
    def required(text: str) -> tuple[int, ...]:
        words = vocabulary.split(text)
        ids = [index for index in map(vocabulary.index, words) if index is not None]
        if not ids or len(ids) < len(words):
            unknown = [word for word in words if vocabulary.index(word) is None] or [repr(text)]
            raise UserError(
                f"the captioner cannot generate {', '.join(unknown)}, which is not among the "
                f"{len(vocabulary.words):,} words of its vocabulary"
            )
        return tuple(ids)

    # A phrase with an unknown word, or of punctuation only, is never generated.
    known = [
        text
        for text in decoding.exclude
        if (words := vocabulary.split(text)) and all(word in vocabulary for word in words)
    ]
    return WordConstraints(
        required(decoding.start) if decoding.start else (),
        tuple(map(required, decoding.include)),
        tuple(map(required, known)),
    )


def _text_constraints(vocabulary: SubwordVocabulary, decoding: DecodingConfig) -> TextConstraints:
    def required(text: str) -> RequiredPhrase:
        phrase = vocabulary.phrase_text(text)
        return RequiredPhrase(phrase, tuple(vocabulary.phrase_ids(phrase)))

    start: tuple[int, ...] = ()
    after_start: list[int] = []
    if decoding.start:
        required(decoding.start)  # reports unknown characters
        start = tuple(vocabulary.to_ids(decoding.start))
        if not begins_unspaced(decoding.start.rstrip()[-1:]):
            # Letters and combining marks would continue the last word.
            pieces = enumerate(vocabulary.pieces)
            after_start = [i for i, piece in pieces if i != EOS_ID and _INSIDE.match(piece)]
    # Each phrase also at the start of a sentence, with the capital letters of all languages: the
    # Turkish one of i has a dot.
    exclude = {
        vocabulary.phrase_text(first + text[1:])
        for text in decoding.exclude
        for first in {text[:1], text[:1].upper(), *(["\u0130"] if text[:1] == "i" else [])}
    }
    return TextConstraints(
        ["", *vocabulary.pieces[1:]],
        SPACE,
        start,
        tuple(map(required, decoding.include)),
        sorted(exclude),
        after_start,
    )
