"""Attention of CLIP's last block with which its patches describe their own content.

In the joint space, the patches of a CLIP that was trained on whole images describe the image more
than their own content. Two methods change the attention of the last block, without training:
MaskCLIP (Zhou et al., ECCV 2022) and SCLIP (Wang et al., ECCV 2024).
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.errors import UserError

PATCH_MODES = ("plain", "maskclip", "sclip")
"""Choices of ``patch_mode``; ``'plain'`` is CLIP's own attention."""


def check_patch_mode(mode: str) -> None:
    """Refuse an unknown mode.

    Raises:
        UserError: If it is not one of :data:`PATCH_MODES`.
    """
    if mode not in PATCH_MODES:
        raise UserError(f"`patch_mode` must be one of {', '.join(PATCH_MODES)}, got `{mode!r}`")


def patch_attention(query: Tensor, key: Tensor, value: Tensor, mode: str) -> Tensor:
    """Compute the attention of all tokens to all tokens.

    Args:
        query: (B, H, L, d) for H heads and L tokens.
        key: (B, H, L, d).
        value: (B, H, L, d).
        mode: ``'plain'`` for ``softmax(q k^T / sqrt(d)) v``; ``'maskclip'`` for ``v``, so that each
            token attends to itself only; ``'sclip'`` for
            ``(softmax(q q^T / sqrt(d)) + softmax(k k^T / sqrt(d))) v``.

    Returns:
        (B, H, L, d).

    Raises:
        UserError: If the mode is unknown.
    """
    check_patch_mode(mode)
    if mode == "maskclip":
        return value
    if mode == "sclip":
        by_query = F.scaled_dot_product_attention(query, query, value)
        return by_query + F.scaled_dot_product_attention(key, key, value)
    return F.scaled_dot_product_attention(query, key, value)


def apply_block(block: Any, tokens: Tensor, mode: str) -> Tensor:
    """Apply a residual attention block of open_clip with another attention.

    Args:
        block: ``ResidualAttentionBlock`` of open_clip.
        tokens: (B, L, D).
        mode: See :func:`patch_attention`.

    Returns:
        (B, L, D). With ``'plain'`` these are the values of ``block(tokens)``.
    """
    attn = block.attn
    projected = F.linear(block.ln_1(tokens), attn.in_proj_weight, attn.in_proj_bias)  # (B, L, 3D)
    heads = projected.unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    query, key, value = heads  # (B, H, L, d) each
    mixed = patch_attention(query, key, value, mode).transpose(1, 2).flatten(2)  # (B, L, D)
    tokens = tokens + block.ls_1(attn.out_proj(mixed))
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
