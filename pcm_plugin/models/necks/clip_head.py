"""CLIP's own image head, which takes a patch into the joint space."""

import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

CLIP_HEAD_KEYS = ("ln_post.weight", "ln_post.bias", "proj")
"""Tensors of a CLIP head: (Dv,), (Dv,) and (Dv, Dc)."""


def load_clip_head(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read a ``clip_head.safetensors``.

    Args:
        path: The file, as ``tools/extract.py`` writes it into a feature store.

    Returns:
        The tensors of :data:`CLIP_HEAD_KEYS`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no CLIP head at {path}; tools/extract.py writes one into every feature store"
        )
    try:
        head = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if set(head) != set(CLIP_HEAD_KEYS):
        raise ValueError(
            f"{path} holds {sorted(head)} instead of {sorted(CLIP_HEAD_KEYS)}: "
            "take the clip_head.safetensors of a feature store"
        )
    return head
