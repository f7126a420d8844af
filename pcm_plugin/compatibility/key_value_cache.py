"""Key-value caches of different versions of transformers."""

from typing import Any

from torch import Tensor


def select_rows(past: Any, rows: Tensor) -> Any:
    """Return a key-value cache with the given rows.

    Args:
        past: ``past_key_values`` of a language model. A Cache object is changed in place; GPT-2 of
            transformers 4.45 returns a tuple with the keys and values of each layer.
        rows: (N,), row indices, which may repeat.
    """
    if hasattr(past, "reorder_cache"):
        past.reorder_cache(rows)
        return past
    return tuple(tuple(part.index_select(0, rows) for part in layer) for layer in past)
