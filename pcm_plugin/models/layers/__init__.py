"""Transformer blocks that encoders and decoders share."""

from .dropout import Dropout, dropout
from .transformer import Attention, FeedForward

__all__ = ["Attention", "Dropout", "FeedForward", "dropout"]
