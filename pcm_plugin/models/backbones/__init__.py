"""Backbones: from images to CLIP features."""

from .open_clip_backbone import OpenCLIPBackbone

__all__ = ["OpenCLIPBackbone"]
