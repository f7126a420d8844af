"""Scores of captions."""

from pcm_plugin.mm_packages import require_mm_packages

require_mm_packages()

from pcm_plugin.evaluation.caption_metric import CaptionMetric

__all__ = ["CaptionMetric"]
