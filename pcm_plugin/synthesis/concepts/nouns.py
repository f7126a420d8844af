"""The frequent nouns of a corpus: what a captioner of it should look for in images.

Nouns are found by TextBlob's PatternTagger, an English tagger whose lexicon and rules come in its
package. It is sometimes wrong about a sentence ("a dog jumps"); the counts of a corpus set that
right: a word must be a noun in most of its places, must not be said more often with -ing, and must
seldom stand right before an article, as a verb does ("a man hits the ball").
"""

from collections import Counter
from collections.abc import Iterable
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
"""They name a place in the picture, an amount, or the picture itself, and no thing in it."""

_MIN_PLURAL_SHARE = 0.9
_MAX_VERB_SHARE = 0.12


@dataclass(frozen=True)
class Noun:
    """A noun of a corpus.

    Attributes:
        word: Its singular; its plural where that is nearly all that is said of it (``pants``).
        count: In how many places it is a noun, singular or plural.
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
    """Find the nouns that English captions name often.

    Args:
        captions: The corpus, read once.
        min_count: How often a noun must occur. Defaults to 5.
        min_share: In what share of its places a word must be a noun: ``jumps`` is a verb more often
            than not. Defaults to 0.5.
        max_nouns: Keep only the most frequent; None keeps all. Defaults to 500, near the released
            list's 446.
        stop_words: Nouns to leave out. Defaults to :data:`STOP_WORDS`.
        phrases: Whether to give pairs of nouns that stand together (``tennis court``) too. Defaults
            to False.

    Returns:
        Nouns by falling count, equal counts in alphabetical order.

    Raises:
        UserError: If no noun is frequent enough, or a number is out of range.
    """
    if min_count < 1 or not 0 <= min_share <= 1 or (max_nouns is not None and max_nouns < 1):
        raise UserError(
            f"min_count={min_count}, min_share={min_share}, max_nouns={max_nouns}: give a count of "
            "at least 1 and a share between 0 and 1"
        )
    stopped = set(stop_words)
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
    found = _gather(nouns, words, verbs, before_article, lemmas, min_share)
    if phrases:
        known = {noun.word for noun in found}
        found += [
            Noun(phrase, count)
            for phrase, count in _phrases(pairs, lemmas).items()
            if known.issuperset(phrase.split()) and stopped.isdisjoint(phrase.split())
        ]
    kept = [noun for noun in found if noun.count >= min_count and noun.word not in stopped]
    if not kept:
        raise UserError(
            f"none of {len(found)} nouns occurs min_count={min_count} times: lower it or give more "
            "captions (English ones: the tagger knows no other language)"
        )
    return sorted(kept, key=lambda noun: (-noun.count, noun.word))[:max_nouns]


def _tag(words: list[str]) -> list[tuple[str, str]]:
    # Slow to import, and only needed here.
    from textblob.en import parser, tag

    if not words:
        return []
    # The lexicon has Asian, an adjective; of asian the tagger would guess that it is a noun.
    known = parser.lexicon
    spelt = [w.capitalize() if w not in known and w.capitalize() in known else w for w in words]
    tags = [kind for _, kind in tag(" ".join(spelt), tokenize=False)]
    return list(zip(words, tags, strict=True))


def _lemma(word: str, plurals: Counter[str], nouns: Counter[str]) -> str:
    """Return the singular of a plural if it is also a noun of the corpus."""
    from textblob.en.inflect import singularize

    if 2 * plurals[word] <= nouns[word]:
        return word
    singular = singularize(word)
    return singular if singular in nouns else word


def _gather(
    nouns: Counter[str],
    words: Counter[str],
    verbs: Counter[str],
    before_article: Counter[str],
    lemmas: dict[str, str],
    min_share: float,
) -> list[Noun]:
    """Count singular and plural together, under the one that is said."""
    forms: dict[str, list[str]] = {}
    for word, lemma in lemmas.items():
        forms.setdefault(lemma, []).append(word)
    found = []
    for lemma, own in forms.items():
        count = sum(nouns[word] for word in own)
        if len(lemma) < 2 or count < min_share * sum(words[word] for word in own):
            continue
        if count < max(verbs[form] for form in _with_ing(lemma)):
            continue
        if sum(before_article[word] for word in own) > _MAX_VERB_SHARE * count:
            continue
        most = max(own, key=lambda word: nouns[word])
        found.append(Noun(most if nouns[most] >= _MIN_PLURAL_SHARE * count else lemma, count))
    return found


def _with_ing(word: str) -> tuple[str, ...]:
    """How the -ing form of a word may be spelt: jumping, riding, running; of rides too."""
    stems = (word, word.removesuffix("s"), word.removesuffix("es"))
    return tuple(f for s in stems for f in (f"{s.removesuffix('e')}ing", f"{s}{s[-1:]}ing"))


def _phrases(pairs: Counter[tuple[str, str]], lemmas: dict[str, str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for (first, second), count in pairs.items():
        counts[f"{first} {lemmas.get(second, second)}"] += count
    return counts
