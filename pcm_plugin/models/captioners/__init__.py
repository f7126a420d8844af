"""Captioners: one file a system."""

from .base import Captioner
from .mixup_vision import MixupVisionEncoder
from .pcm_net import PCMNet
from .prefix_lm import PrefixCaptioner
from .search import Found, Search
from .syntic import SynTIC
from .weights_file import is_captioner, load_captioner, save_captioner

__all__ = [
    "Captioner",
    "Found",
    "MixupVisionEncoder",
    "PCMNet",
    "PrefixCaptioner",
    "Search",
    "SynTIC",
    "is_captioner",
    "load_captioner",
    "save_captioner",
]
