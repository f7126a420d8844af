"""Transformer blocks that encoders and decoders share."""

from .transformer import Attention, FeedForward

__all__ = ["Attention", "FeedForward"]
