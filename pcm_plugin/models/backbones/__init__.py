"""Backbones: images to CLIP features."""

from pcm_plugin.models.backbones.base import Backbone
from pcm_plugin.models.backbones.open_clip_backbone import OpenCLIPBackbone

__all__ = ["Backbone", "OpenCLIPBackbone"]
