"""Scores of captions."""

from pcm_plugin.evaluation.caption_metric import CaptionMetric

__all__ = ["CaptionMetric"]
