"""Transformer blocks that encoders and decoders share."""

from pcm_plugin.models.layers.cpu.dropout import Dropout, dropout
from pcm_plugin.models.layers.cpu.packed_sequence import Rows
from pcm_plugin.models.layers.cpu.prepacked_linear import prepack_linears
from pcm_plugin.models.layers.transformer import (
    CrossAttention,
    FeedForward,
    SelfAttention,
    additive_mask,
)

__all__ = [
    "CrossAttention",
    "Dropout",
    "FeedForward",
    "Rows",
    "SelfAttention",
    "additive_mask",
    "dropout",
    "prepack_linears",
]
