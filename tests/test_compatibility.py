"""Behavior of other versions of the libraries than the installed ones."""

import pyarrow as pa
import torch

from pcm_plugin.compatibility.arrow_types import is_binary, is_string
from pcm_plugin.compatibility.key_value_cache import select_rows


def test_caches_of_all_versions_of_transformers_give_the_same_rows():
    keys, values = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    rows = torch.tensor([2, 0, 0])

    class Cache:
        def reorder_cache(self, beams):
            self.layer = (keys[0][beams], values[0][beams])

    cache = select_rows(Cache(), rows)
    ((key, value),) = select_rows(((keys[0], values[0]),), rows)
    assert torch.equal(key, cache.layer[0])
    assert torch.equal(value, cache.layer[1])


def test_types_of_columns_without_the_views_of_newer_versions(monkeypatch):
    for name in ("is_string_view", "is_binary_view"):
        monkeypatch.delattr(pa.types, name, raising=False)
    assert [is_string(kind) for kind in (pa.string(), pa.large_string())] == [True, True]
    assert [is_binary(kind) for kind in (pa.binary(), pa.large_binary())] == [True, True]
    for kind in (pa.int8(), pa.list_(pa.string()), pa.binary(4)):
        assert not is_string(kind)
        assert not is_binary(kind)
