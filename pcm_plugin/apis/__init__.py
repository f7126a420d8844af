"""Inference with trained captioners."""

from pcm_plugin.mm_packages import require_mm_packages

require_mm_packages()

from pcm_plugin.apis.inferencer import CaptionInferencer
from pcm_plugin.apis.zoo import register_models

__all__ = ["CaptionInferencer", "register_models"]
