"""Caption scores by name: tokenized references and captions in, percentages out.

CIDEr weighs n-grams by how rare they are among the images' references, so it depends on the whole
set and is undefined where no n-gram is rarer than another, as for a single image.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from pcm_plugin.errors import UserError
from pcm_plugin.evaluation import java

References = Sequence[Sequence[str]]
"""Tokenized references of each image: words separated by single spaces."""
Captions = Sequence[str]
"""The tokenized caption of each image."""


class UndefinedScoreError(UserError):
    """A score that is not defined for the given set of images."""


class Scores(NamedTuple):
    """What a scorer found, times 100.

    Attributes:
        total: Score of the whole set by name.
        each: Score of each image by name, in their order.
    """

    total: dict[str, float]
    each: dict[str, list[float]]


def bleu(references: References, captions: Captions) -> Scores:
    """BLEU-1 to BLEU-4 (Papineni et al. 2002), of the corpus and of each image."""
    # verbose=0: the scorer prints its counts to standard output otherwise.
    total, each = Bleu(4).compute_score(*_as_dicts(references, captions), verbose=0)
    names = [f"BLEU-{n}" for n in (1, 2, 3, 4)]
    return _percent(zip(names, total, each, strict=True))


def rouge_l(references: References, captions: Captions) -> Scores:
    """ROUGE-L (Lin 2004), mean over the images."""
    return _percent([("ROUGE-L", *Rouge().compute_score(*_as_dicts(references, captions)))])


def cider(references: References, captions: Captions) -> Scores:
    """CIDEr-D (Vedantam et al. 2015), which COCO's server and pycocoevalcap call CIDEr.

    Document frequencies are those of these references. It comes under both names.

    Raises:
        UndefinedScoreError: If the references of all images have the same n-grams, as those of a single
            image do: all weights are 0, and so would be the score of any caption.
    """
    ngrams = (_ngrams(texts) for texts in references)
    first = next(ngrams)
    if all(other == first for other in ngrams):
        which = "a single image" if len(references) == 1 else "images with the same references"
        raise UndefinedScoreError(
            f"CIDEr is undefined for {which}: it weighs words by how rare they are among the "
            "references of several images"
        )
    found = Cider().compute_score(*_as_dicts(references, captions))
    return _percent([("CIDEr", *found), ("CIDEr-D", *found)])


def meteor(references: References, captions: Captions) -> Scores:
    """METEOR 1.5; needs Java."""
    return _percent([("METEOR", *java.meteor(references, captions))])


def spice(references: References, captions: Captions) -> Scores:
    """SPICE 1.0; needs Java and CoreNLP."""
    return _percent([("SPICE", *java.spice(references, captions))])


Scorer = Callable[[References, Captions], Scores]
SCORERS: dict[str, Scorer] = {
    "BLEU": bleu,
    "ROUGE-L": rouge_l,
    "CIDEr": cider,
    "METEOR": meteor,
    "SPICE": spice,
}
"""The scorers that compare words, by name."""
DEFAULT_SCORERS = ("BLEU", "ROUGE-L", "CIDEr")
"""Those that need no Java."""
SCORE_NAMES: dict[str, tuple[str, ...]] = {
    "BLEU": ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"),
    "CIDEr": ("CIDEr", "CIDEr-D"),
    "CLIPScore": ("CLIPScore", "RefCLIPScore"),
}
"""What a scorer's scores are called, where not as the scorer itself."""


def _ngrams(texts: Sequence[str]) -> set[tuple[str, ...]]:
    """All n-grams of an image's references, n from 1 to 4."""
    words = [text.split() for text in texts]
    return {
        tuple(own[i : i + n]) for own in words for n in range(1, 5) for i in range(len(own) - n + 1)
    }


def _as_dicts(references: References, captions: Captions) -> tuple[dict, dict]:
    gts = {i: list(texts) for i, texts in enumerate(references)}
    return gts, {i: [text] for i, text in enumerate(captions)}


def _percent(found: Iterable[tuple[str, Any, Iterable[Any]]]) -> Scores:
    rows = [(name, 100 * float(total), [100 * float(x) for x in own]) for name, total, own in found]
    return Scores({row[0]: row[1] for row in rows}, {row[0]: row[2] for row in rows})
