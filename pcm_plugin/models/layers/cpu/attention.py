"""Attention on a CPU, where PyTorch's fused kernel has neither dropout nor a path for few queries.

Shapes: B sequences, H heads, L queries, S keys, d width of a head.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pcm_plugin.models.layers.cpu.byte_dropout import DropoutMask
from pcm_plugin.models.layers.masks import additive_mask

_FEW_QUERIES = 8


def cpu_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    causal: bool,
    dropout_p: float,
) -> Tensor:
    """Compute scaled dot-product attention by the method that is fastest for these arguments.

    With dropout PyTorch's kernel falls back to one of many passes. For few queries it is slower
    than plain matrix products, above all if the keys are stored as (B, H, d, S).

    Args:
        queries: (B, H, L, d).
        keys: (B, H, S, d).
        values: (B, H, S, d).
        mask: Broadcastable to (B, H, L, S), bool or additive, or None.
        causal: Whether query i attends to keys up to i only; excludes ``mask``.
        dropout_p: Probability of dropping an attention weight.

    Returns:
        (B, H, L, d).
    """
    is_few = queries.shape[-2] <= _FEW_QUERIES and queries.dtype == torch.float32
    if not (0 < dropout_p < 1 or (dropout_p == 0 and is_few)):
        return F.scaled_dot_product_attention(
            queries, keys, values, mask, dropout_p=dropout_p, is_causal=causal
        )
    if causal:
        mask = torch.ones(queries.shape[-2], keys.shape[-2], dtype=torch.bool).tril()  # (L, S)
    if mask is None:
        mask = queries.new_zeros(())
    elif mask.dtype == torch.bool:
        mask = additive_mask(mask).to(queries.dtype)
    if dropout_p == 0:
        return _attention_weights(queries, keys, mask) @ values
    return _ByteMaskAttention.apply(queries, keys, values, mask, dropout_p)


def _attention_weights(queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """Return softmax(Q K^T / sqrt(d) + mask), (B, H, L, S)."""
    scores = queries @ keys.transpose(-2, -1)
    return torch.add(mask, scores, alpha=queries.shape[-1] ** -0.5).softmax(-1)


class _ByteMaskAttention(torch.autograd.Function):
    """Attention with dropout that saves one byte per weight and recomputes the rest in backward."""

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, p: float
    ) -> Tensor:
        queries, keys, values = (heads.contiguous() for heads in (queries, keys, values))
        weights = _attention_weights(queries, keys, mask)
        dropped = DropoutMask.sample(weights, p)
        ctx.save_for_backward(queries, keys, values, mask, dropped.random_bytes)
        ctx.mask_settings = dropped[1:]
        return dropped.as_tensor(weights).mul_(weights) @ values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, values, mask, random_bytes = ctx.saved_tensors
        weights = _attention_weights(queries, keys, mask)  # (B, H, L, S)
        dropout = DropoutMask(random_bytes, *ctx.mask_settings).as_tensor(weights)
        grad_weights = (grad @ values.transpose(-2, -1)).mul_(dropout)
        grad_values = dropout.mul_(weights).transpose(-2, -1) @ grad  # (B, H, S, d)
        grad_scores = torch.ops.aten._softmax_backward_data(
            grad_weights, weights, -1, weights.dtype
        )
        grad_scores.mul_(queries.shape[-1] ** -0.5)
        grad_keys = grad_scores.transpose(-2, -1) @ queries  # (B, H, S, d)
        return grad_scores @ keys, grad_keys, grad_values, None, None
