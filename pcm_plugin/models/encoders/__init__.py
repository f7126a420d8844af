"""Encoders of visual tokens."""

from pcm_plugin.models.encoders.mixup_vision import MixupVisionEncoder
from pcm_plugin.models.encoders.mlp_prefix_mapper import MLPPrefixMapper
from pcm_plugin.models.encoders.prefix_mapper import PrefixMapper
from pcm_plugin.models.encoders.visual_semantic_encoder import VisualSemanticEncoder

__all__ = ["MLPPrefixMapper", "MixupVisionEncoder", "PrefixMapper", "VisualSemanticEncoder"]
