"""Using trained captioners."""

from .inferencer import CaptionInferencer
from .zoo import register_models

__all__ = ["CaptionInferencer", "register_models"]
