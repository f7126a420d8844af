import numpy as np
import torch
from safetensors import safe_open

from pcm_plugin.formats.tensor_file import serialize_tensors, write_tensors

TENSORS = {
    "b": torch.arange(6.0).view(2, 3).t(),
    "a": torch.ones(3, dtype=torch.bfloat16),
    "c": np.arange(5),
}
METADATA = {f"key{i}": f"välue {i}" for i in range(6)}


def test_metadata_are_sorted():
    # The library's own order differs between two calls already.
    contents = {serialize_tensors(TENSORS, METADATA) for _ in range(10)}
    contents |= {serialize_tensors(TENSORS, dict(reversed(METADATA.items()))) for _ in range(10)}
    assert len(contents) == 1


def test_the_library_reads_what_was_written(tmp_path):
    path = tmp_path / "new" / "x.safetensors"
    for metadata in (METADATA, {"one": "x" * 5}, {}, None):
        write_tensors(path, TENSORS, metadata)
        with safe_open(path, "pt") as file:
            assert (file.metadata() or {}) == (metadata or {})
            assert torch.equal(file.get_tensor("b"), TENSORS["b"])
            assert torch.equal(file.get_tensor("a"), TENSORS["a"])
            assert torch.equal(file.get_tensor("c"), torch.arange(5))
        assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0
    fixed = np.arange(3.0)
    fixed.flags.writeable = False
    write_tensors(path, {"fixed": fixed})
