"""Post-norm attention and feed-forward blocks, as BERT has them.

Shapes: B sequences, L queries, S keys, D model width, H heads, d = D / H.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pcm_plugin.errors import UserError
from pcm_plugin.models.layers.cpu.dropout import Draw, Dropout, relu_dropout, use_native_kernel
from pcm_plugin.models.layers.cpu.packed_sequence import Rows

_FEW_QUERIES = 8
Past = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    causal: bool,
    attn_dropout: float,
) -> Tensor:
    """Scaled dot-product attention, by PyTorch's fused kernel where that is faster.

    On a CPU that kernel knows no dropout, and falls back to one of many passes; and for few queries
    it is slower than plain products whose keys lie as these want them, (B, H, d, S).

    Args:
        queries: (B, H, L, d).
        keys: (B, H, S, d).
        values: (B, H, S, d).
        mask: Broadcastable to (B, H, L, S): bool, True where attention is allowed, or
            :func:`additive_mask` of it; each query needs one such key.
        causal: Whether query i sees keys up to i only; excludes ``mask``.
        attn_dropout: Probability of a weight's being dropped.

    Returns:
        (B, H, L, d).
    """
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(queries.dtype)
    is_few = queries.shape[-2] <= _FEW_QUERIES and queries.dtype == torch.float32
    plain = 0 < attn_dropout < 1 or (attn_dropout == 0 and is_few)
    if not plain or use_native_kernel(queries):
        return F.scaled_dot_product_attention(
            queries, keys, values, mask, dropout_p=attn_dropout, is_causal=causal
        )
    if causal:
        mask = torch.ones(queries.shape[-2], keys.shape[-2], dtype=torch.bool).tril()
    if mask is None:
        mask = queries.new_zeros(())
    elif mask.dtype == torch.bool:
        mask = additive_mask(mask).to(queries.dtype)
    if attn_dropout == 0:
        return _weights(queries, keys, mask) @ values
    return _DroppedAttention.apply(queries, keys, values, mask, attn_dropout)


def _weights(queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    scores = queries @ keys.transpose(-2, -1)
    return torch.add(mask, scores, alpha=queries.shape[-1] ** -0.5).softmax(-1)


class _DroppedAttention(torch.autograd.Function):
    """Of its (L, S) tables it keeps a byte an element for the gradient, and makes them again."""

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, p: float
    ) -> Tensor:
        queries, keys, values = (part.contiguous() for part in (queries, keys, values))
        weights = _weights(queries, keys, mask)
        draw = Draw.of(weights, p)
        ctx.save_for_backward(queries, keys, values, mask, draw.bytes)
        ctx.rest = draw[1:]
        return draw.mask(weights).mul_(weights) @ values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, values, mask, drawn = ctx.saved_tensors
        weights = _weights(queries, keys, mask)
        kept = Draw(drawn, *ctx.rest).mask(weights)
        by_weights = (grad @ values.transpose(-2, -1)).mul_(kept)
        by_values = kept.mul_(weights).transpose(-2, -1) @ grad
        by_scores = torch.ops.aten._softmax_backward_data(by_weights, weights, -1, weights.dtype)
        by_scores.mul_(queries.shape[-1] ** -0.5)
        by_keys = by_scores.transpose(-2, -1) @ queries
        return by_scores @ keys, by_keys, by_values, None, None


def additive_mask(mask: Tensor) -> Tensor:
    """A mask as what is added to scores: float32, 0 where ``mask`` is True, else minus infinity."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -torch.inf)


class _Attention(nn.Module):
    """Attention of given queries, keys and values; its output projection, residual and norm.

    Args:
        embed_dims: D.
        num_heads: H, a divisor of D.
        attn_dropout: Dropout of the attention weights.
        dropout: Dropout before the residual is added.
        norm_eps: Of the LayerNorm.

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
                f"num_heads={num_heads} does not divide embed_dims={embed_dims}: choose a divisor"
            )
        self.num_heads = num_heads
        self.attn_dropout = attn_dropout
        self.out = nn.Linear(embed_dims, embed_dims)
        self.norm = nn.LayerNorm(embed_dims, eps=norm_eps)
        self.dropout = Dropout(dropout)

    def _heads(self, projected: Tensor, parts: int, rows: Rows | None) -> tuple[Tensor, ...]:
        """(B, L, parts * D), or packed rows of it, to ``parts`` times (B, H, L, d)."""
        padded = projected if rows is None else rows.pad(projected)
        split = (part.unflatten(-1, (self.num_heads, -1)) for part in padded.chunk(parts, dim=-1))
        return tuple(part.transpose(1, 2) for part in split)

    def _attend(
        self,
        x: Tensor,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None,
        causal: bool,
        rows: Rows | None,
    ) -> Tensor:
        attn_dropout = self.attn_dropout if self.training else 0.0
        mixed = attend(queries, keys, values, mask, causal, attn_dropout)
        mixed = mixed.transpose(1, 2).flatten(2)
        if rows is not None:
            mixed = rows.pack(mixed)
        return self.norm(x + self.dropout(self.out(mixed)))


class SelfAttention(_Attention):
    """Multi-head attention of a sequence to itself, the residual and the norm after it.

    Queries, keys and values are one product, ``qkv``: its first D outputs are the queries.
    Arguments are those of :class:`_Attention`.
    """

    def __init__(self, embed_dims: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(embed_dims, *args, **kwargs)
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        rows: Rows | None = None,
        past: Past | None = None,
    ) -> Tensor:
        """Attend, project, add to ``x``, normalise.

        Args:
            x: (B, L, D), or (n, D) with ``rows``.
            mask: As :func:`attend` takes it.
            causal: Whether a place sees those up to it only; excludes ``mask``.
            rows: Where the n rows of ``x`` stand among (B, L). Defaults to None.
            past: Takes the keys and values (B, H, L, d) of ``x`` and gives back those to attend to,
                (B, H, S, d). Defaults to None: those of ``x``.

        Returns:
            As ``x``.
        """
        queries, keys, values = self._heads(self.qkv(x), 3, rows)
        if past is not None:
            keys, values = past(keys, values)
        return self._attend(x, queries, keys, values, mask, causal, rows)


class CrossAttention(_Attention):
    """Multi-head attention to another sequence, the residual and the norm after it.

    Keys and values are one product, ``key_value``, the keys first; a decoder keeps them. Arguments
    are those of :class:`_Attention`.
    """

    def __init__(self, embed_dims: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(embed_dims, *args, **kwargs)
        self.query = nn.Linear(embed_dims, embed_dims)
        self.key_value = nn.Linear(embed_dims, 2 * embed_dims)

    def project_kv(self, encoder_out: Tensor) -> tuple[Tensor, Tensor]:
        """Project what is attended to.

        Args:
            encoder_out: (B, S, D).

        Returns:
            Keys and values, (B, H, S, d) each.
        """
        keys, values = self._heads(self.key_value(encoder_out), 2, None)
        return keys, values

    def forward(
        self,
        x: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None = None,
        rows: Rows | None = None,
    ) -> Tensor:
        """Attend, project, add to ``x``, normalise.

        Args:
            x: (B, L, D), the queries' states, or (n, D) with ``rows``.
            keys: (B, H, S, d), of :meth:`project_kv`.
            values: (B, H, S, d).
            mask: As :func:`attend` takes it.
            rows: Where the n rows of ``x`` stand among (B, L). Defaults to None.

        Returns:
            As ``x``.
        """
        (queries,) = self._heads(self.query(x), 1, rows)
        return self._attend(x, queries, keys, values, mask, False, rows)


class FeedForward(nn.Module):
    """Linear, ReLU, Linear, the residual and the norm after it.

    Args:
        embed_dims: D.
        ffn_dims: Width between the two layers.
        dropout: After the activation, and again before the residual is added.
        norm_eps: Of the LayerNorm.
    """

    def __init__(self, embed_dims: int, ffn_dims: int, dropout: float, norm_eps: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dims, ffn_dims)
        self.fc2 = nn.Linear(ffn_dims, embed_dims)
        self.norm = nn.LayerNorm(embed_dims, eps=norm_eps)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        hidden = relu_dropout(self.fc1(x), self.dropout.p, self.dropout.training)
        return self.norm(x + self.dropout(self.fc2(hidden)))
