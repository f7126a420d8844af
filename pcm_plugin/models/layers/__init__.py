"""Transformer blocks that encoders and decoders share."""

from pcm_plugin.models.layers.cpu.dropout import Dropout, dropout
from pcm_plugin.models.layers.cpu.packed_sequence import Rows
from pcm_plugin.models.layers.cpu.prepacked_linear import arrange_for
from pcm_plugin.models.layers.transformer import (
    CrossAttention,
    FeedForward,
    SelfAttention,
    log_mask,
)

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
