"""Concepts that captions name, and concepts that are frequent in one set of images or captions."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pcm_plugin.formats.languages import is_english, split_words
from pcm_plugin.formats.tokenize import singular

Row = tuple[str, float, float]
"""A concept and two percentages."""


class ConceptFinder:
    """Find concepts in captions.

    A caption names a concept if the tokens of the concept occur next to each other in it. In
    English, the last of them may be in the plural (``two cars`` names ``car``); in other languages
    inflected forms do not count, and if the tokens are characters, a concept may be a part of a
    longer word. Synonyms do not count.

    Args:
        concepts: Words or phrases.
        language: Code of the language of the captions.
    """

    def __init__(self, concepts: Iterable[str], language: str) -> None:
        self._phrases = {word: tuple(split_words(word, language)) for word in concepts}
        self._known = {phrase for phrase in self._phrases.values() if phrase}
        self._lengths = {len(phrase) for phrase in self._known}
        self._has_plurals = is_english(language)

    def named(self, tokens: Sequence[str], concepts: Iterable[str]) -> list[str]:
        """Return those concepts that a caption names.

        Args:
            tokens: Tokens of the caption, see :func:`~pcm_plugin.formats.languages.split_words`.
            concepts: Some of the concepts of the finder.
        """
        found = self._find(tokens)
        return [concept for concept in concepts if self._phrases[concept] in found]

    def share(self, captions: Sequence[Sequence[str]]) -> float:
        """Return the percentage of captions that name at least one concept.

        Args:
            captions: Tokens of each caption, at least one caption.
        """
        return 100 * sum(bool(self._find(tokens)) for tokens in captions) / len(captions)

    def _find(self, tokens: Sequence[str]) -> set[tuple[str, ...]]:
        """Return the tokens of the concepts in a caption."""
        found = set()
        for length in self._lengths:
            for end in range(length, len(tokens) + 1):
                phrase = tuple(tokens[end - length : end])
                found.add(phrase)
                if self._has_plurals:
                    found.add((*phrase[:-1], singular(phrase[-1])))
        return found & self._known


@dataclass(frozen=True)
class ConceptComparison:
    """Concepts of photos, synthetic images and captions, as rows with two percentages.

    Attributes:
        only_in_photos: Frequent in photos (first) and rare in synthetic images.
        only_in_synthetic: Frequent in synthetic images and rare in photos (first).
        rare_in_captions: Frequent in photos (first) and rare in training captions.
        left_out: In photos (first), and less often in their captions.
        missing: Concepts that photos show and the training does not: they are rare in training
            captions and, if there are any, in synthetic images. CLIP may find a concept where it is
            not, but then it finds it in both kinds of images.
    """

    only_in_photos: list[Row] = field(default_factory=list)
    only_in_synthetic: list[Row] = field(default_factory=list)
    rare_in_captions: list[Row] = field(default_factory=list)
    left_out: list[Row] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def compare_concepts(
    photos: Sequence[Sequence[str]],
    synthetic: Sequence[Sequence[str]] | None,
    photo_captions: Sequence[Sequence[str]] | None,
    training_captions: Sequence[Sequence[str]] | None,
) -> ConceptComparison:
    """Compare the concepts in images and in captions.

    Args:
        photos: Concepts found in each photo, at least one photo.
        synthetic: The same of synthetic images. None without them.
        photo_captions: Those of them that the caption of each photo names. None if concepts cannot
            be found in captions.
        training_captions: Concepts that each training caption names. None likewise.
    """
    shares = concept_shares(photos)
    only_in_photos: list[Row] = []
    only_in_synthetic: list[Row] = []
    rare: list[Row] = []
    left_out: list[Row] = []
    if synthetic is not None:
        others = concept_shares(synthetic)
        only_in_photos = frequent_only_in(shares, others)
        rows = frequent_only_in(others, shares)
        only_in_synthetic = [(word, share, other) for word, other, share in rows]
    if training_captions is not None:
        rare = frequent_only_in(shares, concept_shares(training_captions))
    if photo_captions is not None:
        named = concept_shares(photo_captions)
        left_out = [(word, share, named.get(word, 0.0)) for word, share in shares.items()]
        left_out = [row for row in left_out if row[1] > row[2]]
        left_out.sort(key=lambda row: (row[2] - row[1], row[0]))
    only = {row[0] for row in only_in_photos}
    missing = [row[0] for row in rare if synthetic is None or row[0] in only]
    return ConceptComparison(only_in_photos, only_in_synthetic, rare, left_out, missing)


def concept_shares(found: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return the percentage of the images in which each concept is found.

    Args:
        found: Concepts of each image, at least one image.
    """
    counts = Counter(word for words in found for word in dict.fromkeys(words))
    return {word: 100 * count / len(found) for word, count in counts.items()}


def frequent_only_in(
    shares: dict[str, float], others: dict[str, float], minimum: float = 5.0, factor: float = 5.0
) -> list[Row]:
    """Return concepts that are frequent in one set and not in another.

    Args:
        shares: Percentage of images with each concept, of the first set.
        others: The same of the second set.
        minimum: Minimum percentage in the first set. Defaults to 5.
        factor: Minimum ratio of the two percentages. Defaults to 5.

    Returns:
        Concept and its two percentages, those with the largest difference first.
    """
    chosen = [
        (word, share, others.get(word, 0.0))
        for word, share in shares.items()
        if share >= minimum and share >= factor * others.get(word, 0.0)
    ]
    return sorted(chosen, key=lambda row: (row[2] - row[1], row[0]))
