"""Safetensors files that are byte-identical for identical content."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from pcm_plugin.formats.atomic_io import write_bytes

_ALIGNMENT = 8


def serialize_tensors(
    tensors: Mapping[str, Tensor | np.ndarray], metadata: Mapping[str, str] | None = None
) -> bytes:
    """Return the content of a safetensors file, with sorted metadata.

    The safetensors library keeps metadata in a hash map with a random order in each process, so
    that a file with several metadata keys differs from run to run.

    Args:
        tensors: Tensors or arrays by name, on any device.
        metadata: Texts to store in the header. Defaults to None.
    """
    values = {
        name: (
            torch.from_numpy(np.require(value, requirements="W"))
            if isinstance(value, np.ndarray)
            else value.detach()
        )
        for name, value in tensors.items()
    }
    data = save({name: value.cpu().contiguous() for name, value in values.items()})
    if not metadata:
        return data
    size = int.from_bytes(data[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(data[8 : 8 + size])}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(data)[8 + size :]))


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor | np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a safetensors file atomically; see :func:`serialize_tensors`.

    Args:
        path: File to write or replace; its folder is created.
        tensors: Tensors or arrays by name.
        metadata: Texts to store in the header. Defaults to None.
    """
    write_bytes(path, serialize_tensors(tensors, metadata))
