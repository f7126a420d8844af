"""Exact nearest neighbours by inner product, in chunks.

Shapes: Q queries, S keys of one chunk, D features, k neighbours.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from pcm_plugin.errors import UserError


def chunked_topk(queries: Tensor, keys: Iterable[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """Find the keys with the largest inner products.

    Memory is that of one chunk of keys and its (Q, S) products, however many chunks there are.

    Args:
        queries: (Q, D) float32.
        keys: Chunks (S, D) float32, numbered through from 0 in their order.
        k: Number of neighbours.

    Returns:
        Products (Q, k) float32, falling, and indices (Q, k) int64. With fewer than k keys in all,
        as many columns as there are keys.

    Raises:
        UserError: If k is less than 1.
    """
    if k < 1:
        raise UserError(f"k={k}: give at least 1")
    best = queries.new_empty(len(queries), 0)
    where = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    first = 0
    for chunk in keys:
        products = queries @ chunk.T
        values, columns = products.topk(min(k, len(chunk)), dim=1)
        values, columns = torch.cat([best, values], 1), torch.cat([where, columns + first], 1)
        best, order = values.topk(min(k, values.shape[1]), dim=1)
        where = columns.gather(1, order)
        first += len(chunk)
    return best, where
