"""Necks: from CLIP features to the tokens of a captioner."""

from .global_prefix import GlobalPrefix
from .object_prefix import ObjectPrefix
from .output import MixupOutput
from .pcm_mixup import PCMMixup

__all__ = ["GlobalPrefix", "MixupOutput", "ObjectPrefix", "PCMMixup"]
