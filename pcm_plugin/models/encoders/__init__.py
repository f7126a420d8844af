"""Encoders of visual tokens."""

from .prefix_mapper import PrefixMapper
from .visual_semantic_encoder import VisualSemanticEncoder

__all__ = ["PrefixMapper", "VisualSemanticEncoder"]
