"""Encoders of visual tokens."""

from .mlp_prefix_mapper import MLPPrefixMapper
from .prefix_mapper import PrefixMapper
from .visual_semantic_encoder import VisualSemanticEncoder

__all__ = ["MLPPrefixMapper", "PrefixMapper", "VisualSemanticEncoder"]
