"""Scores of tokenized captions against tokenized references, as percentages.

CIDEr weighs n-grams by their rarity among the references of all images. It therefore depends on the
whole set, and is undefined if all n-grams are equally rare, as for a single image.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from pcm_plugin.errors import UserError
from pcm_plugin.evaluation import java
from pcm_plugin.evaluation.names import WORD_SCORERS

References = Sequence[Sequence[str]]
"""Tokenized references of each image, words separated by single spaces."""
Captions = Sequence[str]
"""The tokenized caption of each image."""


class UndefinedScoreError(UserError):
    """A score that is not defined for a set of images."""


class Scores(NamedTuple):
    """Scores of a set of images, multiplied by 100.

    Attributes:
        total: Score of the whole set by name.
        each: Scores of the images by name, in their order.
    """

    total: dict[str, float]
    each: dict[str, list[float]]


def bleu(references: References, captions: Captions) -> Scores:
    """Compute BLEU-1 to BLEU-4 (Papineni et al. 2002) of the corpus and of each image."""
    # verbose=0: otherwise the scorer prints its counts to standard output.
    total, each = Bleu(4).compute_score(*_as_dicts(references, captions), verbose=0)
    names = [f"BLEU-{n}" for n in (1, 2, 3, 4)]
    return _percent(zip(names, total, each, strict=True))


def rouge_l(references: References, captions: Captions) -> Scores:
    """Compute ROUGE-L (Lin 2004), mean and per image."""
    return _percent([("ROUGE-L", *Rouge().compute_score(*_as_dicts(references, captions)))])


def cider(references: References, captions: Captions) -> Scores:
    """Compute CIDEr-D (Vedantam et al. 2015), which COCO's server and pycocoevalcap call CIDEr.

    Document frequencies are those of the given references. The score is returned under both names.

    Raises:
        UndefinedScoreError: If the references of all images have the same n-grams, as for a single
            image. All weights would be 0, and so would the score of any caption.
    """
    ngrams = (_ngrams(texts) for texts in references)
    first = next(ngrams)
    if all(other == first for other in ngrams):
        which = "a single image" if len(references) == 1 else "images with the same references"
        raise UndefinedScoreError(
            f"CIDEr is undefined for {which}: it weighs words by their rarity among the references "
            "of several images"
        )
    scores = Cider().compute_score(*_as_dicts(references, captions))
    return _percent([("CIDEr", *scores), ("CIDEr-D", *scores)])


def meteor(references: References, captions: Captions) -> Scores:
    """Compute METEOR 1.5. Needs Java."""
    return _percent([("METEOR", *java.meteor(references, captions))])


def spice(references: References, captions: Captions) -> Scores:
    """Compute SPICE 1.0. Needs Java and CoreNLP."""
    return _percent([("SPICE", *java.spice(references, captions))])


Scorer = Callable[[References, Captions], Scores]
SCORERS: dict[str, Scorer] = dict(
    zip(WORD_SCORERS, (bleu, rouge_l, cider, meteor, spice), strict=True)
)
"""Scorers that compare words, by name."""
SCORE_NAMES: dict[str, tuple[str, ...]] = {
    "BLEU": ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"),
    "CIDEr": ("CIDEr", "CIDEr-D"),
    "CLIPScore": ("CLIPScore", "RefCLIPScore"),
}
"""Names of the scores of a scorer, if they differ from its own name."""


def _ngrams(texts: Sequence[str]) -> set[tuple[str, ...]]:
    """Return all n-grams of an image's references, n from 1 to 4."""
    return {
        tuple(words[i : i + n])
        for words in map(str.split, texts)
        for n in range(1, 5)
        for i in range(len(words) - n + 1)
    }


def _as_dicts(references: References, captions: Captions) -> tuple[dict, dict]:
    gts = {i: list(texts) for i, texts in enumerate(references)}
    return gts, {i: [text] for i, text in enumerate(captions)}


def _percent(scores: Iterable[tuple[str, Any, Iterable[Any]]]) -> Scores:
    percent = Scores({}, {})
    for name, total, each in scores:
        percent.total[name] = 100 * float(total)
        percent.each[name] = [100 * float(score) for score in each]
    return percent
