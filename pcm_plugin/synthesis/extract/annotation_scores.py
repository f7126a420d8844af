"""CLIP scores of annotations, which are kept if they were computed with the CLIP of the features.

The released annotations store 2.5 * cosine. Their captions, decoded from a
vocabulary, have lost rare words, so scores computed from them are slightly different.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from pcm_plugin.errors import UserError

CLIP_SCORE_SOURCES = ("auto", "annotation", "model")
"""Keep the scores of annotations, compute new ones, or choose by comparing both."""

COMPARED_IMAGES = 20
"""Number of images with CLIP scores that are compared for ``'auto'``."""

MAX_MEDIAN_DIFFERENCE = 0.08
"""Largest median difference of 2.5 * cosine for scores of the same CLIP.

The words that decoded captions have lost cause smaller differences. On generated images, the scores
of OpenAI's ViT-B/32 and ViT-L/14 differ by more.
"""

logger = logging.getLogger(__name__)


def check_clip_score_source(value: str) -> None:
    """Refuse a name that is not among :data:`CLIP_SCORE_SOURCES`.

    Raises:
        UserError: If it is not.
    """
    if value not in CLIP_SCORE_SOURCES:
        raise UserError(f"clip_score_source must be one of {CLIP_SCORE_SOURCES}, got {value!r}")


def refuse_missing_scores(source: str) -> None:
    """Refuse to keep the CLIP scores of images without annotated scores.

    Args:
        source: One of :data:`CLIP_SCORE_SOURCES`.

    Raises:
        UserError: If it is ``'annotation'``.
    """
    if source == "annotation":
        raise UserError(
            "clip_score_source must be 'auto' or 'model' (--clip-scores) for images whose "
            "annotations have no CLIP scores, got 'annotation': leave the option out, or pass the "
            "annotation pickle that has them"
        )


class ScoreChoice(NamedTuple):
    """Choice between CLIP scores.

    Attributes:
        source: ``'annotation'`` or ``'model'``.
        reason: Sentence for the log.
        level: Level of the log.
    """

    source: str
    reason: str
    level: int = logging.INFO

    def log(self, num_scored: int, num_images: int) -> None:
        """Log the choice, and how many images get computed scores if annotated ones are kept.

        Args:
            num_scored: Number of images with CLIP scores in the annotations.
            num_images: Number of all images.
        """
        logger.log(self.level, self.reason)
        if self.source == "annotation" and num_scored < num_images:
            logger.warning(
                "%s of %s images have no CLIP score in the annotations; theirs are computed",
                *(f"{num_images - num_scored:,}", f"{num_images:,}"),
            )


def choose_clip_scores(
    source: str, annotated: Sequence[float], computed: Sequence[float], model: str
) -> ScoreChoice:
    """Choose between the CLIP scores of annotations and computed ones.

    Args:
        source: One of :data:`CLIP_SCORE_SOURCES`.
        annotated: 2.5 * cosine of n captions in the annotations; unused unless ``source`` is
            ``'auto'``.
        computed: 2.5 * cosine of the same captions by the CLIP of the features.
        model: Name of that CLIP, for the log.

    Returns:
        The choice. For ``'auto'``, ``'annotation'`` if the median absolute difference is at most
        :data:`MAX_MEDIAN_DIFFERENCE`.
    """
    if source != "auto":
        return ScoreChoice(source, f"CLIP scores: {source}, as set by clip_score_source")
    if not len(annotated):
        return ScoreChoice(
            "model",
            f"CLIP scores are computed with {model}: none of the first {COMPARED_IMAGES} images "
            "that have scores in the annotations can be read, so they cannot be compared; "
            "--clip-scores annotation keeps them",
            logging.WARNING,
        )
    import numpy as np

    difference = float(np.median(np.abs(np.subtract(annotated, computed))))
    measured = f"differ by {difference:.3f} (median of {len(annotated)} captions) from those of"
    if difference <= MAX_MEDIAN_DIFFERENCE:
        return ScoreChoice(
            "annotation", f"CLIP scores of the annotations are kept: they {measured} {model}"
        )
    return ScoreChoice(
        "model",
        f"CLIP scores are computed: the annotations' ones {measured} {model}, so another CLIP made "
        "them; --clip-scores annotation keeps them",
        logging.WARNING,
    )
