"""Caption scores that need no Java: references and captions in, percentages out.

All functions take the tokenized references and the tokenized caption of each image, by image
id: words separated by single spaces. CIDEr weighs n-grams by how rare they are in the references
given, so it depends on the whole set and is 0 for a single image.
"""

from collections.abc import Callable, Hashable, Mapping

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

References = Mapping[Hashable, list[str]]
Captions = Mapping[Hashable, str]


def bleu(references: References, captions: Captions) -> dict[str, float]:
    """BLEU-1 to BLEU-4 of the corpus (Papineni et al. 2002), times 100."""
    # verbose=0: the scorer prints its counts to standard output otherwise.
    scores, _ = Bleu(4).compute_score(references, _as_lists(captions), verbose=0)
    return {f"BLEU-{n}": 100 * float(score) for n, score in enumerate(scores, start=1)}


def rouge_l(references: References, captions: Captions) -> dict[str, float]:
    """ROUGE-L (Lin 2004), mean over the images, times 100."""
    score, _ = Rouge().compute_score(references, _as_lists(captions))
    return {"ROUGE-L": 100 * float(score)}


def cider(references: References, captions: Captions) -> dict[str, float]:
    """CIDEr-D (Vedantam et al. 2015) with document frequencies of these references, times 100."""
    score, _ = Cider().compute_score(references, _as_lists(captions))
    return {"CIDEr": 100 * float(score)}


Scorer = Callable[[References, Captions], dict[str, float]]
SCORERS: dict[str, Scorer] = {"BLEU": bleu, "ROUGE-L": rouge_l, "CIDEr": cider}
"""The scorers that :class:`~pcm_plugin.evaluation.CaptionMetric` knows by name."""
SCORE_NAMES: dict[str, tuple[str, ...]] = {"BLEU": ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")}
"""What a scorer's scores are called, where not as the scorer itself."""


def _as_lists(captions: Captions) -> dict[Hashable, list[str]]:
    return {image_id: [caption] for image_id, caption in captions.items()}
