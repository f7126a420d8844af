"""Scores of captions."""

from typing import TYPE_CHECKING

from pcm_plugin.lazy_exports import lazy_exports
from pcm_plugin.mm_packages import require_mm_packages

require_mm_packages()

if TYPE_CHECKING:
    from pcm_plugin.evaluation.caption_metric import CaptionMetric

__all__ = ["CaptionMetric"]

__getattr__ = lazy_exports(__name__, {"CaptionMetric": "caption_metric"})
