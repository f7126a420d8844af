"""Attention and feed-forward blocks of a post-norm Transformer, as in BERT.

Shapes: B sequences, L queries, S keys, D model width, H heads, d = D / H.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.models.layers.cpu.attention import cpu_attention
from pcm_plugin.models.layers.cpu.switch import use_cpu_kernels
from pcm_plugin.models.layers.dropout import Dropout, relu_dropout
from pcm_plugin.models.layers.packed_sequence import PackedSequence

KVUpdate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Store new keys and values (B, H, L, d) in a cache and return those to attend to (B, H, S, d)."""


def attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    causal: bool,
    dropout_p: float,
) -> Tensor:
    """Compute scaled dot-product attention: softmax(Q K^T / sqrt(d)) V.

    Args:
        queries: (B, H, L, d).
        keys: (B, H, S, d).
        values: (B, H, S, d).
        mask: Broadcastable to (B, H, L, S): bool, True where attention is allowed, or the
            :func:`~.masks.additive_mask` of it. Each query must be allowed at least one key.
        causal: Whether query i attends to keys up to i only; excludes ``mask``.
        dropout_p: Probability of dropping an attention weight.

    Returns:
        (B, H, L, d).
    """
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(queries.dtype)
    if use_cpu_kernels(queries):
        return cpu_attention(queries, keys, values, mask, causal, dropout_p)
    return F.scaled_dot_product_attention(
        queries, keys, values, mask, dropout_p=dropout_p, is_causal=causal
    )


class AttentionBlock(nn.Module):
    """Base class of multi-head attention with output projection, residual and LayerNorm.

    Args:
        embed_dims: D.
        num_heads: H, a divisor of D.
        attn_dropout: Dropout of the attention weights.
        dropout: Dropout before the residual is added.
        norm_eps: Epsilon of the LayerNorm.

    Raises:
        UserError: If H does not divide D.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        attn_dropout: float,
        dropout: float,
        norm_eps: float,
    ) -> None:
        super().__init__()
        if embed_dims % num_heads:
            raise UserError(
                f"`num_heads` must divide embed_dims={embed_dims}, got `{num_heads}`: pass a "
                "divisor"
            )
        self.num_heads = num_heads
        self.attn_dropout = attn_dropout
        self.out = nn.Linear(embed_dims, embed_dims)
        self.norm = nn.LayerNorm(embed_dims, eps=norm_eps)
        self.dropout = Dropout(dropout)

    def _attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, causal: bool
    ) -> Tensor:
        dropout_p = self.attn_dropout if self.training else 0.0
        return attention(queries, keys, values, mask, causal, dropout_p)

    def _split_heads(
        self, projected: Tensor, num_parts: int, packing: PackedSequence | None
    ) -> tuple[Tensor, ...]:
        """Split (B, L, num_parts * D), or its packed form, into parts of (B, H, L, d)."""
        padded = projected if packing is None else packing.pad(projected)
        parts = padded.chunk(num_parts, dim=-1)  # (B, L, D) each
        return tuple(part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)

    def _merge_heads(self, heads: Tensor, packing: PackedSequence | None) -> Tensor:
        """Merge (B, H, L, d) to (B, L, D), or to its packed form (n, D)."""
        merged = heads.transpose(1, 2).flatten(2)  # (B, L, D)
        return merged if packing is None else packing.pack(merged)

    def _add_and_norm(self, x: Tensor, attended: Tensor) -> Tensor:
        return self.norm(x + self.dropout(self.out(attended)))


class SelfAttention(AttentionBlock):
    """Multi-head self-attention, add & norm.

    One linear layer, ``qkv``, computes queries, keys and values, in this order. The arguments are
    those of :class:`.AttentionBlock`.
    """

    def __init__(self, embed_dims: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(embed_dims, *args, **kwargs)
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        packing: PackedSequence | None = None,
        update_kv: KVUpdate | None = None,
    ) -> Tensor:
        """Compute the block.

        Args:
            x: (B, L, D), or (n, D) with ``packing``.
            mask: As in :func:`attention`. Defaults to None.
            causal: Whether a position attends only to itself and earlier ones; excludes ``mask``.
                Defaults to False.
            packing: Positions of the n tokens of ``x`` in (B, L). Defaults to None.
            update_kv: Key-value cache. Defaults to None: attend to the keys and values of ``x``.

        Returns:
            The same shape as ``x``.
        """
        queries, keys, values = self._split_heads(self.qkv(x), 3, packing)  # (B, H, L, d) each
        if update_kv is not None:
            keys, values = update_kv(keys, values)  # (B, H, S, d)
        attended = self._attend(queries, keys, values, mask, causal)  # (B, H, L, d)
        return self._add_and_norm(x, self._merge_heads(attended, packing))


class CrossAttention(AttentionBlock):
    """Multi-head cross-attention to another sequence, add & norm.

    One linear layer, ``key_value``, computes keys and values, in this order; a decoder computes
    them once per image and reuses them. The arguments are those of :class:`.AttentionBlock`.
    """

    def __init__(self, embed_dims: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(embed_dims, *args, **kwargs)
        self.query = nn.Linear(embed_dims, embed_dims)
        self.key_value = nn.Linear(embed_dims, 2 * embed_dims)

    def project_kv(self, encoder_out: Tensor) -> tuple[Tensor, Tensor]:
        """Project the sequence to attend to.

        Args:
            encoder_out: (B, S, D).

        Returns:
            Keys and values, (B, H, S, d) each.
        """
        keys, values = self._split_heads(self.key_value(encoder_out), 2, None)
        return keys, values

    def forward(
        self,
        x: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None = None,
        packing: PackedSequence | None = None,
    ) -> Tensor:
        """Compute the block.

        Args:
            x: (B, L, D), or (n, D) with ``packing``.
            keys: (B, H, S, d), from :meth:`project_kv`.
            values: (B, H, S, d).
            mask: As in :func:`attention`. Defaults to None.
            packing: Positions of the n tokens of ``x`` in (B, L). Defaults to None.

        Returns:
            The same shape as ``x``.
        """
        (queries,) = self._split_heads(self.query(x), 1, packing)  # (B, H, L, d)
        attended = self._attend(queries, keys, values, mask, causal=False)  # (B, H, L, d)
        return self._add_and_norm(x, self._merge_heads(attended, packing))


class FeedForward(nn.Module):
    """Position-wise feed-forward network (Linear, ReLU, Linear), add & norm.

    Args:
        embed_dims: D.
        ffn_dims: Width of the hidden layer.
        dropout: Dropout after the activation, and again before the residual is added.
        norm_eps: Epsilon of the LayerNorm.
    """

    def __init__(self, embed_dims: int, ffn_dims: int, dropout: float, norm_eps: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dims, ffn_dims)
        self.fc2 = nn.Linear(ffn_dims, embed_dims)
        self.norm = nn.LayerNorm(embed_dims, eps=norm_eps)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block: (..., D) to (..., D)."""
        hidden = relu_dropout(self.fc1(x), self.dropout.p, self.dropout.training)  # (..., ffn_dims)
        return self.norm(x + self.dropout(self.fc2(hidden)))
