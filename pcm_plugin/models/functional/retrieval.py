"""Exact nearest neighbors by inner product, computed in chunks.

Shapes: Q queries, S keys of one chunk, D features, k neighbors.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from pcm_plugin.errors import UserError


def chunked_topk(queries: Tensor, keys: Iterable[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """Find the k keys with the largest inner products for each query.

    Only one chunk of keys and its products (Q, S) are in memory at a time.

    Args:
        queries: (Q, D) float32.
        keys: Chunks (S, D) float32; keys are numbered across chunks from 0.
        k: Number of neighbors.

    Returns:
        Products (Q, k) float32 in descending order, and indices (Q, k) int64. With fewer than k
        keys in total, there are as many columns as keys.

    Raises:
        UserError: If k is less than 1.
    """
    if k < 1:
        raise UserError(f"`k` must be at least 1, got `{k}`: pass the number of neighbors")
    best = queries.new_empty(len(queries), 0)
    indices = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    offset = 0
    for chunk in keys:
        products = queries @ chunk.T  # (Q, S)
        values, columns = products.topk(min(k, len(chunk)), dim=1)
        values = torch.cat([best, values], dim=1)  # (Q, up to 2 * k)
        candidates = torch.cat([indices, columns + offset], dim=1)  # (Q, up to 2 * k)
        best, order = values.topk(min(k, values.shape[1]), dim=1)
        indices = candidates.gather(1, order)
        offset += len(chunk)
    return best, indices
