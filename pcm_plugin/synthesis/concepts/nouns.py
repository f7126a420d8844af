"""Frequent nouns of a corpus, which become the concepts of a captioner.

Words are tagged by TextBlob's PatternTagger, an English tagger whose lexicon and rules are part of
its package. It makes mistakes in single sentences ("a dog jumps"), which counts over the corpus
correct: a word must be tagged as a noun in most of its occurrences, its -ing form must not be more
frequent, and it must rarely precede an article, as a verb does ("a man hits the ball").
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pcm_plugin.errors import UserError
from pcm_plugin.formats.tokenize import tokenize

_STOP_WORDS = """
front back side top bottom left right middle center centre edge end corner
background foreground distance direction
part piece half item kind type sort way lot pair couple group bunch variety number row set series
something someone somebody anything anyone nothing everyone everything other others one thing
things time day view scene photo photograph picture image shot
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Nouns for positions in an image, amounts, or the image itself, but not for objects in it."""

_MIN_PLURAL_SHARE = 0.9
_MAX_VERB_SHARE = 0.12


@dataclass(frozen=True)
class Noun:
    """A noun of a corpus.

    Attributes:
        word: The singular, or the plural if nearly all occurrences are plural (``pants``).
        count: Number of occurrences as a noun, singular or plural.
    """

    word: str
    count: int


def find_nouns(
    captions: Iterable[str],
    min_count: int = 5,
    min_share: float = 0.5,
    max_nouns: int | None = 500,
    stop_words: Iterable[str] = STOP_WORDS,
    phrases: bool = False,
) -> list[Noun]:
    """Find the frequent nouns of English captions.

    Args:
        captions: The corpus, read once.
        min_count: Minimum number of occurrences of a noun. Defaults to 5.
        min_share: Minimum share of a word's occurrences that are tagged as nouns; ``jumps``, for
            example, is mostly a verb. Defaults to 0.5.
        max_nouns: Keep only the most frequent nouns. None keeps all. Defaults to 500; the released
            list has 446.
        stop_words: Nouns to omit. Defaults to :data:`STOP_WORDS`.
        phrases: Whether to include pairs of adjacent nouns (``tennis court``). Defaults to False.

    Returns:
        Nouns by decreasing count; equal counts in alphabetical order.

    Raises:
        UserError: If no noun is frequent enough, or a number is out of range.
    """
    if min_count < 1 or not 0 <= min_share <= 1 or (max_nouns is not None and max_nouns < 1):
        raise UserError(
            "min_count and max_nouns must be at least 1 and min_share from 0 to 1, got "
            f"min_count={min_count}, max_nouns={max_nouns}, min_share={min_share}"
        )
    stop_set = set(stop_words)
    words: Counter[str] = Counter()
    nouns: Counter[str] = Counter()
    plurals: Counter[str] = Counter()
    verbs: Counter[str] = Counter()
    before_article: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for caption in captions:
        tagged = _tag(tokenize(caption))
        words.update(word for word, _ in tagged)
        nouns.update(word for word, tag in tagged if tag.startswith("NN"))
        plurals.update(word for word, tag in tagged if tag == "NNS")
        verbs.update(word for word, tag in tagged if tag == "VBG")
        for (first, tag), (second, other) in pairwise(tagged):
            before_article[first] += tag.startswith("NN") and other in ("DT", "PRP$")
            if phrases and tag == "NN" and other.startswith("NN"):
                pairs[first, second] += 1
    lemmas = {word: _lemma(word, plurals, nouns) for word in nouns}
    found = _merge_forms(nouns, words, verbs, before_article, lemmas, min_share)
    if phrases:
        known = {noun.word for noun in found}
        found += [
            Noun(phrase, count)
            for phrase, count in _phrases(pairs, lemmas).items()
            if known.issuperset(phrase.split()) and stop_set.isdisjoint(phrase.split())
        ]
    found = [noun for noun in found if noun.word not in stop_set]
    note = " (in English, the only language of this tagger: pass a tagger for others)"
    return frequent_nouns(found, min_count, max_nouns, note)


def frequent_nouns(
    nouns: Sequence[Noun], min_count: int, max_nouns: int | None, note: str = ""
) -> list[Noun]:
    """Return the frequent nouns by decreasing count; equal counts in alphabetical order.

    Args:
        nouns: Nouns in any order.
        min_count: Minimum number of occurrences.
        max_nouns: Keep only the most frequent nouns. None keeps all.
        note: Text to append to the error message. Defaults to none.

    Raises:
        UserError: If no noun is frequent enough.
    """
    kept = [noun for noun in nouns if noun.count >= min_count]
    if not kept:
        raise UserError(
            f"none of {len(nouns)} nouns occurs min_count={min_count} times: lower it, or use more "
            f"captions{note}"
        )
    return sorted(kept, key=lambda noun: (-noun.count, noun.word))[:max_nouns]


def _tag(words: list[str]) -> list[tuple[str, str]]:
    # Imported here because it is slow.
    from textblob.en import parser, tag

    if not words:
        return []
    # The lexicon contains Asian, an adjective; the tagger would guess that asian is a noun.
    known = parser.lexicon
    cased = [w.capitalize() if w not in known and w.capitalize() in known else w for w in words]
    tags = [kind for _, kind in tag(" ".join(cased), tokenize=False)]
    return list(zip(words, tags, strict=True))


def _lemma(word: str, plurals: Counter[str], nouns: Counter[str]) -> str:
    """Return the singular of a word that is mostly plural, if the corpus has it as a noun."""
    from textblob.en.inflect import singularize

    if 2 * plurals[word] <= nouns[word]:
        return word
    singular = singularize(word)
    return singular if singular in nouns else word


def _merge_forms(
    nouns: Counter[str],
    words: Counter[str],
    verbs: Counter[str],
    before_article: Counter[str],
    lemmas: dict[str, str],
    min_share: float,
) -> list[Noun]:
    """Sum the counts of singular and plural, and drop words that are mostly not nouns."""
    forms: dict[str, list[str]] = {}
    for word, lemma in lemmas.items():
        forms.setdefault(lemma, []).append(word)
    found = []
    for lemma, inflected in forms.items():
        count = sum(nouns[word] for word in inflected)
        if len(lemma) < 2 or count < min_share * sum(words[word] for word in inflected):
            continue
        if count < max(verbs[form] for form in _with_ing(lemma)):
            continue
        if sum(before_article[word] for word in inflected) > _MAX_VERB_SHARE * count:
            continue
        most = max(inflected, key=lambda word: nouns[word])
        found.append(Noun(most if nouns[most] >= _MIN_PLURAL_SHARE * count else lemma, count))
    return found


def _with_ing(word: str) -> tuple[str, ...]:
    """Return the possible -ing forms of a word or of its singular: jumping, riding, running."""
    stems = (word, word.removesuffix("s"), word.removesuffix("es"))
    return tuple(f for s in stems for f in (f"{s.removesuffix('e')}ing", f"{s}{s[-1:]}ing"))


def _phrases(pairs: Counter[tuple[str, str]], lemmas: dict[str, str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for (first, second), count in pairs.items():
        counts[f"{first} {lemmas.get(second, second)}"] += count
    return counts
