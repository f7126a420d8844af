"""Backbones: from images to CLIP features."""

from pcm_plugin.models.backbones.open_clip_backbone import OpenCLIPBackbone

__all__ = ["OpenCLIPBackbone"]
