"""Captioners: one file a system."""

from .pcm_net import PCMNet

__all__ = ["PCMNet"]
