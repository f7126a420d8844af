"""Attention masks."""

import torch
from torch import Tensor


def additive_mask(mask: Tensor) -> Tensor:
    """Convert a boolean attention mask to a term that is added to the attention scores.

    Args:
        mask: Bool, any shape, True where attention is allowed.

    Returns:
        float32 in the same shape, 0 where ``mask`` is True, else minus infinity.
    """
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -torch.inf)
