"""Transformer blocks that encoders and decoders share."""

from .dropout import Dropout, dropout
from .few_rows import arrange_for
from .rows import Rows
from .transformer import CrossAttention, FeedForward, SelfAttention, log_mask

__all__ = [
    "CrossAttention",
    "Dropout",
    "FeedForward",
    "Rows",
    "SelfAttention",
    "arrange_for",
    "dropout",
    "log_mask",
]
