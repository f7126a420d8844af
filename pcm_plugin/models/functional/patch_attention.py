"""Attention of the last block of CLIP's image tower, for patch features.

In the joint space, the patches of a CLIP that was trained on whole images describe the image more
than their own content. Two methods change the attention of the last block, without training, so
that patches attend to similar patches or only to themselves: SCLIP (Wang et al., ECCV 2024) and
MaskCLIP (Zhou et al., ECCV 2022).
"""

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
