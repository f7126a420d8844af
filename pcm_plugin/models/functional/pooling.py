"""Pooling of token embeddings to sentence embeddings, as in sentence-transformers.

Shapes: B sentences, T tokens, D features.
"""

import torch
from torch import Tensor

from pcm_plugin.errors import UserError

POOLINGS = ("cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""Poolings by the names of sentence-transformers."""


def pool_tokens(tokens: Tensor, mask: Tensor, pooling: str = "mean") -> Tensor:
    """Pool the embeddings of the tokens of each sentence.

    Args:
        tokens: (B, T, D) floating point.
        mask: (B, T), 1 for tokens and 0 for padding; every row has at least one token.
        pooling: ``'cls'``, the first token; ``'mean'``; ``'max'``, per feature;
            ``'mean_sqrt_len_tokens'``, the sum over the square root of the number of tokens;
            ``'weightedmean'``, the mean weighted with the position from 1; or ``'lasttoken'``.
            Defaults to ``'mean'``.

    Returns:
        (B, D).

    Raises:
        UserError: If ``pooling`` is not one of these.
    """
    if pooling not in POOLINGS:
        raise UserError(f"pooling must be one of {POOLINGS}, got {pooling!r}")
    mask = mask.bool()
    positions = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)  # (T,)
    if pooling in ("cls", "lasttoken"):
        # Tokenizers may pad on either side.
        first = mask.int().argmax(1) if pooling == "cls" else (mask * positions).argmax(1)
        return tokens[torch.arange(len(tokens), device=tokens.device), first]
    if pooling == "max":
        return tokens.masked_fill(~mask[..., None], -torch.inf).amax(1)
    weights = mask.to(tokens.dtype)  # (B, T)
    if pooling == "weightedmean":
        weights = weights * positions
    total = torch.einsum("btd,bt->bd", tokens, weights)
    count = weights.sum(1, keepdim=True)
    return total / (count.sqrt() if pooling == "mean_sqrt_len_tokens" else count)
