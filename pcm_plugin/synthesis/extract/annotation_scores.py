"""CLIP scores that come with annotations: kept if the CLIP of the features made them."""

import logging
from collections.abc import Sequence

import numpy as np

from pcm_plugin.errors import UserError

CLIP_SCORE_SOURCES = ("auto", "annotation", "model")
"""Choices: the scores of the annotations, computed ones, or whichever the comparison selects."""

MAX_MEDIAN_DIFFERENCE = 0.08
"""Of 2.5 * cosine. The same CLIP differs by the words that the annotations' vocabulary leaves out;
the levels of OpenAI's ViT-B/32 and ViT-L/14 differ by more than that on generated images."""

logger = logging.getLogger(__name__)


def check_clip_score_source(value: str) -> None:
    """Refuse a name that is not among :data:`CLIP_SCORE_SOURCES`.

    Raises:
        UserError: If it is not.
    """
    if value not in CLIP_SCORE_SOURCES:
        raise UserError(f"clip_score_source must be one of {CLIP_SCORE_SOURCES}, got {value!r}")


def refuse_missing_scores(source: str) -> None:
    """Refuse to keep the scores of annotations that have none.

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


def choose_clip_scores(
    source: str, annotated: Sequence[float], computed: Sequence[float], model: str
) -> str:
    """Choose between the scores of annotations and those of the CLIP that made the features.

    Args:
        source: One of :data:`CLIP_SCORE_SOURCES`.
        annotated: Scores of some captions in the annotations, 2.5 * cosine.
        computed: Scores of the same captions by the features' CLIP, 2.5 * cosine.
        model: That CLIP's name, for the message.

    Returns:
        ``'annotation'`` or ``'model'``. For ``'auto'``, the former if the median of the absolute
        differences is at most :data:`MAX_MEDIAN_DIFFERENCE`; a warning says if it is not.
    """
    if source != "auto":
        return source
    if not len(annotated):
        return "model"
    difference = float(np.median(np.abs(np.subtract(annotated, computed))))
    if difference <= MAX_MEDIAN_DIFFERENCE:
        return "annotation"
    logger.warning(
        "the annotations' CLIP scores differ by %.3f (median of %d captions) from those of %s: "
        "another CLIP made them, and they are recomputed; --clip-scores annotation keeps them",
        *(difference, len(annotated), model),
    )
    return "model"
