"""Transformer layers shared by encoders and decoders."""

from pcm_plugin.models.layers.cpu.prepacked_linear import prepack_linears
from pcm_plugin.models.layers.cpu.switch import use_cpu_kernels
from pcm_plugin.models.layers.dropout import Dropout, dropout
from pcm_plugin.models.layers.masks import additive_mask
from pcm_plugin.models.layers.packed_sequence import PackedSequence
from pcm_plugin.models.layers.transformer import CrossAttention, FeedForward, SelfAttention

__all__ = [
    "CrossAttention",
    "Dropout",
    "FeedForward",
    "PackedSequence",
    "SelfAttention",
    "additive_mask",
    "dropout",
    "prepack_linears",
    "use_cpu_kernels",
]
