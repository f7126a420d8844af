"""Caption generation: beam search and re-ranking."""

from pcm_plugin.models.decoding.config import DecodingConfig
from pcm_plugin.models.decoding.hypothesis import CaptionHypothesis

__all__ = ["CaptionHypothesis", "DecodingConfig"]
