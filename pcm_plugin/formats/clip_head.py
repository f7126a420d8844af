"""CLIP head: the layers of CLIP's image tower that project patches into the joint space."""

import hashlib
import os
import time
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pcm_plugin.errors import LockedError, MissingFileError, UserError
from pcm_plugin.formats.atomic_io import sha256, write_bytes
from pcm_plugin.formats.shards import ShardFolder
from pcm_plugin.formats.tensor_file import serialize_tensors

CLIP_HEAD = "clip_head.safetensors"
"""Name of the file in a feature store."""

_POLL_SECONDS = 0.1

CLIP_HEAD_KEYS = ("ln_post.weight", "ln_post.bias", "proj")
"""Tensors of a CLIP head, of shapes (Dv,), (Dv,) and (Dv, Dc)."""


def load_clip_head(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read a ``clip_head.safetensors``.

    Args:
        path: The file, as ``pcm extract`` writes it into a feature store.

    Returns:
        The tensors of :data:`.CLIP_HEAD_KEYS`.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If it does not hold a CLIP head.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(
            f"no CLIP head at {path}; `pcm extract` writes one into every feature store"
        )
    try:
        head = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file: {error}") from error
    if set(head) != set(CLIP_HEAD_KEYS):
        raise UserError(
            f"{path} must hold {sorted(CLIP_HEAD_KEYS)}, got {sorted(head)}: "
            "pass the clip_head.safetensors of a feature store"
        )
    return head


def has_clip_head(folder: ShardFolder) -> bool:
    """Return whether the CLIP head of a store is unchanged, or the store needs none."""
    path, info = folder.path / CLIP_HEAD, folder.manifest["info"]
    if info.get("clip_head") is None:
        return "clip_head" in info
    return path.is_file() and sha256(path) == info["clip_head"]


def write_clip_head(folder: ShardFolder, head: dict[str, Tensor] | None) -> str | None:
    """Write a CLIP head into a store, unless it is there already.

    Args:
        folder: The store. Several processes may write the same head at the same time.
        head: The tensors of :data:`.CLIP_HEAD_KEYS`. None for a CLIP whose patches are in the
            joint space: the head of another CLIP is removed.

    Returns:
        The SHA-256 of the file, or None without a head.
    """
    path = folder.path / CLIP_HEAD
    if head is None:
        path.unlink(missing_ok=True)
        return None
    data = serialize_tensors(head)
    while not path.is_file() or path.read_bytes() != data:
        try:
            write_bytes(path, data)
        except LockedError:  # another process is writing it; that process may be killed
            time.sleep(_POLL_SECONDS)
    return hashlib.sha256(data).hexdigest()
