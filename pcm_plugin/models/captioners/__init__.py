"""Captioners: one file a system."""

from .pcm_net import PCMNet
from .search import Found, Search
from .weights_file import is_captioner, load_captioner, save_captioner

__all__ = ["Found", "PCMNet", "Search", "is_captioner", "load_captioner", "save_captioner"]
