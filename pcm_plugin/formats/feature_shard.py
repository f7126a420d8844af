"""One shard of a feature store: its writer and a memory-mapped reader.

For the n images and m captions of a shard there are two files:

- ``shard-00000.safetensors``, with ``patch_feats`` (n, N, Dv), before ``ln_post``;
  ``global_feats`` (n, Dc) and ``caption_feats`` (m, Dc), L2-normalized rows; all three of the
  store's ``dtype``; ``clip_scores`` (m,) float32, 2.5 * cosine; ``caption_offsets`` (n + 1,) int64:
  image i has the captions ``offsets[i]:offsets[i + 1]``;
- ``shard-00000.jsonl``, one line per image: ``{"image_id": str, "captions": [str, ...]}``, with
  ``"file_name"`` where the images came as files.

A store of captions alone has ``caption_feats`` and ``caption_offsets`` only. Each caption is an
entry of its own, whose ``image_id`` is the id of the caption.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.formats.atomic_io import write_bytes
from pcm_plugin.formats.image_ids import refuse_repeated
from pcm_plugin.formats.piece_reader import file_id
from pcm_plugin.formats.shards import Shard, ShardFolder
from pcm_plugin.formats.tensor_file import write_tensors

if TYPE_CHECKING:
    from pcm_plugin.formats.captions.record import Caption

FORMAT = "pcm-features"
"""Format name in the manifest of a feature store."""

TORCH_DTYPES = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "I64": torch.int64,
}
"""Dtypes by their names in safetensors files."""

NUMPY_DTYPES = {"F16": np.float16, "BF16": np.uint16, "F32": np.float32, "I64": np.int64}
"""The same for NumPy, which has no bfloat16 and gets its raw bits."""


def write_feature_shard(
    folder: ShardFolder,
    shard: Shard,
    images: Sequence[dict[str, Any]],
    patch_feats: Tensor,
    global_feats: Tensor,
    caption_feats: Tensor,
    clip_scores: Tensor,
    head: str | None = None,
    **record: Any,
) -> None:
    """Write one shard of a store and list it in the manifest.

    Args:
        folder: The store, opened with ``ShardFolder.open_for_write(path, FORMAT, ...)``.
        shard: The shard.
        images: n dicts with ``image_id``, ``captions`` and optionally ``file_name``.
        patch_feats: (n, N, Dv), in the dtype to store.
        global_feats: (n, Dc), L2-normalized.
        caption_feats: (m, Dc), L2-normalized, in the order of the images and their captions.
        clip_scores: (m,), 2.5 * cosine.
        head: SHA-256 of the store's ``clip_head.safetensors``. Defaults to None: the store has no
            head, or its hash is unknown.
        **record: Further JSON values for the shard's record in the manifest.

    Raises:
        UserError: If the sizes do not match, or two images share an id.
    """
    refuse_repeated(
        lambda: (image["image_id"] for image in images),
        f"image ids of {folder.path}, {shard.name},",
        "give every image a unique id",
    )
    counts = [len(image["captions"]) for image in images]
    if not len(images) == len(patch_feats) == len(global_feats):
        raise UserError(
            f"patch_feats and global_feats must have one row per image, got {len(images)} images, "
            f"{len(patch_feats)} patch_feats and {len(global_feats)} global_feats"
        )
    if not sum(counts) == len(caption_feats) == len(clip_scores):
        raise UserError(
            f"caption_feats and clip_scores must have one row per caption, got {sum(counts)} "
            f"captions, {len(caption_feats)} caption_feats and {len(clip_scores)} clip_scores"
        )
    dtype = patch_feats.dtype
    tensors = {
        "patch_feats": patch_feats,
        "global_feats": global_feats.to(dtype),
        "caption_feats": caption_feats.to(dtype),
        "clip_scores": clip_scores.float(),
    }
    _write_shard(folder, shard, images, tensors, head, **record)


def write_caption_shard(
    folder: ShardFolder, shard: Shard, captions: Sequence["Caption"], caption_feats: Tensor
) -> None:
    """Write one shard of a store of captions alone and list it in the manifest.

    Args:
        folder: The store, opened with ``ShardFolder.open_for_write(path, FORMAT, settings, ...)``,
            where the settings have ``images=False``.
        shard: The shard.
        captions: n captions with unique ids.
        caption_feats: (n, Dc), L2-normalized, in the dtype to store.

    Raises:
        UserError: If the sizes do not match, or two captions share an id.
    """
    refuse_repeated(
        lambda: (caption.id for caption in captions),
        f"caption ids of {folder.path}, {shard.name},",
        "give every caption a unique id",
    )
    if len(captions) != len(caption_feats):
        raise UserError(
            f"caption_feats must have one row per caption, got {len(captions)} captions and "
            f"{len(caption_feats)} caption_feats"
        )
    images = [{"image_id": caption.id, "captions": [caption.text]} for caption in captions]
    _write_shard(folder, shard, images, {"caption_feats": caption_feats})


def _write_shard(
    folder: ShardFolder,
    shard: Shard,
    images: Sequence[dict[str, Any]],
    tensors: Mapping[str, Tensor],
    head: str | None = None,
    **record: Any,
) -> None:
    """Write the files of a shard; without ``patch_feats`` it is one of captions alone."""
    counts = [len(image["captions"]) for image in images]
    feats = tensors["caption_feats"]
    num_patches, patch_dim = (
        tensors["patch_feats"].shape[1:] if "patch_feats" in tensors else (0, 0)
    )
    files = [f"{shard.name}.safetensors", f"{shard.name}.jsonl"]
    write_bytes(folder.path / files[1], b"".join(map(image_line, images)))
    offsets = torch.tensor([0, *counts]).cumsum(0)
    write_tensors(folder.path / files[0], {**tensors, "caption_offsets": offsets})
    info = {
        "num_patches": num_patches,
        "patch_dim": patch_dim,
        "clip_dim": feats.shape[1],
        "dtype": str(feats.dtype).removeprefix("torch."),
        "clip_head": head,
    }
    folder.commit(shard, files, len(images), info, captions=sum(counts), **record)


def image_line(image: dict[str, Any]) -> bytes:
    """Return the line of an image in the ``.jsonl`` of a shard."""
    return (json.dumps(image, ensure_ascii=False) + "\n").encode()


class FeatureShard:
    """Memory-mapped files of one shard.

    Args:
        stem: Path of the files without a suffix.

    Attributes:
        file_id: Identity of the safetensors file.
        arrays: Its tensors by name, of :data:`NUMPY_DTYPES`.
        dtypes: Their dtypes by name, keys of :data:`TORCH_DTYPES`.
        offsets: Where their data start in the file, in bytes.
    """

    def __init__(self, stem: Path) -> None:
        path = stem.with_suffix(".safetensors")
        self.file_id = file_id(path.stat())
        data = _map_file(path)
        # Eight bytes with the size of the header, the header, the data
        start = 8 + int.from_bytes(data[:8].tobytes(), "little")
        header = json.loads(data[8:start].tobytes())
        header.pop("__metadata__", None)
        self.arrays: dict[str, np.ndarray] = {}
        self.dtypes: dict[str, str] = {}
        self.offsets: dict[str, int] = {}
        for key, entry in header.items():
            first, last = (start + offset for offset in entry["data_offsets"])
            dtype = entry["dtype"]
            self.dtypes[key], self.offsets[key] = dtype, first
            self.arrays[key] = data[first:last].view(NUMPY_DTYPES[dtype]).reshape(entry["shape"])
        self._text = _map_file(stem.with_suffix(".jsonl"))

    @functools.cached_property
    def _line_ends(self) -> np.ndarray:
        return np.flatnonzero(self._text == ord("\n"))

    def record(self, row: int) -> dict[str, Any]:
        """Return the record of an image."""
        start = self._line_ends[row - 1] + 1 if row else 0
        return json.loads(self._text[start : self._line_ends[row]].tobytes())


def _map_file(path: Path) -> np.ndarray:
    # Unlike np.memmap and safetensors' safe_open, this keeps no file descriptor. A large store has
    # more shards than a process may have open files.
    size = path.stat().st_size
    if not size:
        return np.empty(0, np.uint8)
    return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
