"""One sentence about a captioner: how good it probably is, and what would improve it most.

The sentence follows from measured values by the rules of :func:`assess`. Their thresholds are ours;
docs/evaluation.md lists them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

GOOD_TRANSFER, FAIR_TRANSFER = 0.85, 0.6
"""Ratios of the margins on photos and on synthetic images, from which captions of photos count as
about as good as those of synthetic images, or as worse but related to the photos."""
GOOD_FIT = 0.7
"""Ratio of the margins of predicted captions and of training captions on synthetic images, below
which the captioner has not learned its training data."""
LARGE_GAP = 80.0
"""Accuracy of the nearest neighbor, in percent, from which the gap is large."""
MANY_COPIES = 50.0
"""Percentage of captions copied from training, from which they count as retrieved."""
LOW_COVERAGE = 50.0
"""Percentage of the concepts in photos, below which captions leave out much."""


@dataclass(frozen=True)
class Measurements:
    """Measured values of a training run. NaN or None is unknown.

    Attributes:
        cider: CIDEr (times 100) on images with references.
        cider_on: Name of these images.
        margin: Margin of the CLIPScore on photos, see :func:`.reference_free_scores`.
        synthetic_margin: The same on synthetic training images.
        training_margin: The same of the training captions of these images.
        copied: Percentage of captions of photos that are training captions.
        coverage: Percentage of the concepts found in photos that captions name.
        gap: ``neighbor_accuracy`` of :class:`.DomainGap` for synthetic images and photos.
        missing_concepts: Concepts that are frequent in photos and rare in training captions.
        has_photos: Whether photos were measured.
        has_images: Whether the run was trained on images.
        uses_photos: Whether training captions are assigned to photos.
        is_refined: Whether the pairs are refined.
        is_reranked: Whether captions are re-ranked by CLIP.
    """

    cider: float = math.nan
    cider_on: str = ""
    margin: float = math.nan
    synthetic_margin: float = math.nan
    training_margin: float = math.nan
    copied: float = math.nan
    coverage: float = math.nan
    gap: float = math.nan
    missing_concepts: Sequence[str] = ()
    has_photos: bool = False
    has_images: bool = True
    uses_photos: bool = False
    is_refined: bool = False
    is_reranked: bool = False

    @property
    def transfer(self) -> float:
        """Ratio of the margins on photos and on synthetic images."""
        return _ratio(self.margin, self.synthetic_margin)

    @property
    def fit(self) -> float:
        """Ratio of the margins of predicted and of training captions on synthetic images."""
        return _ratio(self.synthetic_margin, self.training_margin)


def assess(values: Measurements) -> str:
    """Return the sentence about a captioner."""
    return f"{_quality(values)}; {_improvement(values)}."


def _quality(values: Measurements) -> str:
    """Say how good the captioner probably is."""
    parts = []
    if not math.isnan(values.cider):
        parts.append(f"its CIDEr on {values.cider_on} is {values.cider:.1f}")
    if not math.isnan(values.transfer):
        share = f"the margin of its CLIPScore is {100 * values.transfer:.0f} % of that on them"
        if values.transfer >= GOOD_TRANSFER:
            level = "describes your photos about as well as its synthetic training images"
        elif values.transfer >= FAIR_TRANSFER:
            level = "describes your photos noticeably worse than its synthetic training images"
        else:
            level = "probably describes your photos badly compared with its synthetic images"
        parts.append(f"it {level} ({share})")
    elif not math.isnan(values.margin):
        is_related = values.margin > 0
        parts.append(
            f"its captions of your photos score {abs(values.margin):.1f} CLIPScore points "
            f"{'above' if is_related else 'below'} those of other photos"
        )
    if not parts:
        return "How good the captioner is on real images is unknown"
    text = " and ".join(parts)
    return f"{text[0].upper()}{text[1:]}"


def _improvement(values: Measurements) -> str:
    """Name the first of these measures that applies."""
    start = "what would probably improve it most: "
    if not values.has_photos:
        return (
            "pass a folder of your photos with --photos, which need no captions, to learn what "
            "would improve it most"
        )
    if values.fit < GOOD_FIT:
        return (
            f"{start}a longer training, since its captions of synthetic training images reach only "
            f"{100 * values.fit:.0f} % of the margin of the training captions"
        )
    if values.missing_concepts:
        names = ", ".join(values.missing_concepts[:5])
        return f"{start}captions about what your photos show and few captions name ({names})"
    if not values.has_images and values.margin <= 0:
        return f"{start}captions that fit your photos"
    if values.gap >= LARGE_GAP and not values.uses_photos:
        return (
            f"{start}captions that are assigned to your photos (--photos of pcm make-dataset), "
            "since synthetic images are easily told from photos "
            f"({values.gap:.0f} % by nearest neighbor)"
        )
    if values.copied >= MANY_COPIES:
        return (
            f"{start}more different captions, since {values.copied:.0f} % are copied from training"
        )
    if values.has_images and not values.is_refined:
        return f"{start}refined pairs (pcm refine)"
    if not values.is_reranked:
        return f"{start}re-ranking by CLIP (rerank_weight), which needs no training"
    if values.coverage < LOW_COVERAGE:
        return (
            f"{start}more detailed captions, since they name {values.coverage:.0f} % of the "
            "concepts in your photos"
        )
    if not values.has_images:
        return f"{start}generated images or photos to train on (a recipe with images)"
    return f"{start}more captions"


def _ratio(value: float, other: float) -> float:
    """Return a ratio; NaN if the divisor is not positive or a value is unknown."""
    return value / other if other > 0 else math.nan
