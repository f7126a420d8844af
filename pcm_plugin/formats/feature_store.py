"""Feature store: CLIP features and captions of many images in few memory-mapped files.

A store is a :class:`~pcm_plugin.formats.shards.ShardFolder` of format ``pcm-features`` with

- ``manifest.json``, whose ``info`` holds ``num_patches`` N, ``patch_dim`` Dv, ``clip_dim`` Dc and
  ``dtype``;
- two files per shard, see :mod:`pcm_plugin.formats.feature_shard`. The features of captions may
  stand alone: then the ``settings`` have ``images: false``, and N and Dv are 0;
- ``clip_head.safetensors``: ``ln_post.weight``, ``ln_post.bias`` (Dv,) and ``proj`` (Dv, Dc).

The reader of the safetensors files is written by hand because training reads random rows of more
shards than a process may have open files, and ``safetensors.safe_open`` keeps each file open. In
shuffled order it reads 19 times as many images per second as one compressed ``.npz`` per image from
the page cache, and 14 times as many from disk (``benchmarks/read_store.py``, see
docs/benchmarks.md).
"""

import bisect
import math
import os
import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import fingerprint
from pcm_plugin.formats.clip_head import CLIP_HEAD
from pcm_plugin.formats.feature_shard import FORMAT, NUMPY_DTYPES, TORCH_DTYPES, FeatureShard
from pcm_plugin.formats.image_ids import refuse_repeated
from pcm_plugin.formats.piece_reader import PieceReader
from pcm_plugin.formats.shards import ShardFolder


class FeatureStore:
    """Random access to a feature store.

    Images are numbered 0 to ``len(store) - 1`` over all shards, captions 0 to
    ``store.num_captions - 1``. Image i has the captions
    ``store.caption_offsets[i]:store.caption_offsets[i + 1]``. Small tensors are memory-mapped; rows
    of large ones are read on request. The memory of a process does not grow with the store, and
    worker processes share one copy in the page cache.

    Args:
        path: Folder of the store.

    Attributes:
        path: Folder of the store.
        num_patches: N, patches per image; 0 if the store has no patch features.
        patch_dim: Dv, width of the patch features.
        clip_dim: Dc, width of the joint space.
        has_images: Whether there are features of images. A store of captions alone has one entry
            per caption in place of an image. A merged store may have both kinds of entries.
        settings: Settings that the features were extracted with.
        identity: Fingerprint of the content of all shards.
        digests: Source of each shard, see :meth:`digest`.
        caption_offsets: (len(store) + 1,) int64, the first caption of each image.

    Raises:
        MissingFileError: If there is no store at ``path``.
        UserError: If it is incomplete, damaged or of another format.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        try:
            folder = ShardFolder(self.path, FORMAT, "pcm extract")
        except FileNotFoundError:
            raise MissingFileError(
                f"no feature store at {self.path}; make one with: "
                f"pcm extract IMAGES --model MODEL --out {shlex.quote(str(self.path))}"
            ) from None
        folder.check_complete()
        info = folder.manifest["info"]
        if info.get("clip_head") and not self.clip_head.is_file():
            raise UserError(
                f"files of {self.path} are missing or cut: {CLIP_HEAD}; "
                "run the command that made it again"
            )
        self.num_patches: int = info["num_patches"]
        self.patch_dim: int = info["patch_dim"]
        self.clip_dim: int = info["clip_dim"]
        self.settings: dict[str, Any] = folder.manifest["settings"]
        self.has_images: bool = self.settings.get("images", True)
        self.identity = fingerprint({name: r["files"] for name, r in folder.shards.items()})
        self.digests: list[str] = [record["digest"] for record in folder.shards.values()]
        self._prefixes = [record.get("prefixes", 0) for record in folder.shards.values()]
        self._names = list(folder.shards)
        self._hashes = [
            r["files"][f"{name}.safetensors"]["sha256"] for name, r in folder.shards.items()
        ]
        counts = [record["count"] for record in folder.shards.values()]
        captions = [record["captions"] for record in folder.shards.values()]
        self._first_image = np.cumsum([0, *counts])
        self._first_images: list[int] = self._first_image.tolist()
        self._first_caption = np.cumsum([0, *captions])
        self._shards: dict[int, FeatureShard] = {}
        self._reader = PieceReader([self.path / f"{name}.safetensors" for name in self._names])
        self.caption_offsets = np.concatenate(
            [[0], *(self._offsets(s)[1:] + self._first_caption[s] for s in range(len(counts)))]
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return int(self._first_image[-1])

    @property
    def num_captions(self) -> int:
        """Number of captions of all images."""
        return int(self._first_caption[-1])

    @property
    def clip_head(self) -> Path:
        """Path of the file with CLIP's frozen ``ln_post`` and ``proj``."""
        return self.path / CLIP_HEAD

    @property
    def patches_in_joint_space(self) -> bool:
        """Whether the patch features are in the joint space already and need no CLIP head."""
        return self.patch_dim == self.clip_dim and not self.clip_head.is_file()

    @property
    def image_ids(self) -> list[str]:
        """Ids of all images."""
        return [self.record(i)["image_id"] for i in range(len(self))]

    @property
    def is_image(self) -> np.ndarray:
        """(len(store),) bool, whether each entry is an image, not a caption alone."""
        flags = ["global_feats" in self._shard(s).arrays for s in range(len(self._names))]
        return np.repeat(flags, np.diff(self._first_image))

    @property
    def num_prefixes(self) -> np.ndarray:
        """(len(store),) int, merges that put a prefix before id and file name of each image."""
        return np.repeat(self._prefixes, np.diff(self._first_image))

    @property
    def clip_scores(self) -> np.ndarray:
        """(num_captions,) float32, 2.5 * cosine of each caption and its image; NaN without one.

        Raises:
            UserError: In a store of captions alone.
        """
        self.require_images("clip_scores")
        scores = np.full(self.num_captions, np.nan, np.float32)
        for s, first in enumerate(self._first_caption[:-1].tolist()):
            own = self._shard(s).arrays.get("clip_scores", scores[:0])
            scores[first : first + len(own)] = own
        return scores

    def record(self, i: int) -> dict[str, Any]:
        """Return ``image_id``, ``captions`` and, if known, ``file_name`` of image i."""
        first = self._first_images
        if not 0 <= i < first[-1]:
            raise IndexError(f"index must be 0 to {first[-1] - 1} in {self.path}, got {i}")
        s = bisect.bisect_right(first, i) - 1
        return self._shard(s).record(i - first[s])

    def digest(self, i: int) -> str:
        """Return the digest of the source of image i's shard.

        For generated images it identifies the archive.
        """
        return self.digests[bisect.bisect_right(self._first_images, i) - 1]

    def content_key(self, i: int) -> tuple[str, int]:
        """Return the SHA-256 of the features of image i's shard, and the position of i in it.

        The image has the same key in a store that ``pcm store merge`` made from this one.
        """
        s = bisect.bisect_right(self._first_images, i) - 1
        return self._hashes[s], i - self._first_images[s]

    def require_images(self, what: str) -> None:
        """Check that the store has features of images.

        Args:
            what: What needs them, such as ``"features='patch'"``, for the message.

        Raises:
            UserError: If it holds the features of captions alone.
        """
        if not self.has_images:
            raise UserError(
                f"{what} needs images, but {self.path} was made from captions alone: train CapDec, "
                "DeCap or a prefix captioner on it (features='text'), or make a store with images "
                "in another folder (pcm make-dataset with a recipe such as sd15_vitb32)"
            )

    def check_unique_ids(self) -> None:
        """Check that no two images share an id.

        Raises:
            UserError: If some do; the message names the first.
        """
        refuse_repeated(
            lambda: (self.record(i)["image_id"] for i in range(len(self))),
            f"image ids of {self.path}",
            "extract it again from images with unique ids",
        )

    def captions(self, i: int) -> list[str]:
        """Return the captions of image i."""
        return self.record(i)["captions"]

    def caption(self, j: int) -> str:
        """Return caption j."""
        i = int(self.caption_to_image([j])[0])
        return self.captions(i)[j - int(self.caption_offsets[i])]

    def patch_feats(self, i: int) -> Tensor:
        """Return the patch features of image i before ``ln_post``, (N, Dv) float32."""
        return self.read_rows("patch_feats", [i])[0]

    def global_feats(self, i: int) -> Tensor:
        """Return the L2-normalized CLIP embedding of image i, (Dc,) float32."""
        return self.read_rows("global_feats", [i])[0]

    def caption_feats(self, j: int) -> Tensor:
        """Return the L2-normalized CLIP embedding of caption j, (Dc,) float32."""
        return self.read_rows("caption_feats", [j])[0]

    def read_rows(
        self,
        key: str,
        indices: Sequence[int] | np.ndarray,
        dtype: torch.dtype | None = torch.float32,
    ) -> Tensor:
        """Read several rows at once, which is faster than one by one, above all from a cold disk.

        Args:
            key: ``'patch_feats'`` or ``'global_feats'``, with one row per image, or
                ``'caption_feats'``, with one row per caption.
            indices: Numbers of n images or captions.
            dtype: Dtype to return. Defaults to float32; None keeps the dtype of the store.

        Returns:
            A copy of the rows, (n, N, Dv) or (n, Dc).

        Raises:
            IndexError: If an index is out of range.
            UserError: If features of images are requested of entries that are captions alone.
        """
        if key != "caption_feats":
            self.require_images(key)
        first = self._first_caption if key == "caption_feats" else self._first_image
        rows = np.asarray(indices, dtype=np.int64)
        outside = (rows < 0) | (rows >= first[-1])
        if outside.any():
            raise IndexError(
                f"index must be 0 to {first[-1] - 1} in {self.path}, got {rows[outside][0]}"
            )
        shards = np.searchsorted(first, rows, "right") - 1
        row_in_shard = rows - first[shards]
        shard = self._shard_with(key, int(shards[0]) if len(rows) else len(self._names) - 1)
        stored = shard.dtypes[key]
        out = np.empty((len(rows), *shard.arrays[key].shape[1:]), NUMPY_DTYPES[stored])
        size = out.dtype.itemsize * math.prod(out.shape[1:])
        # Consecutive rows are read as one piece.
        breaks = 1 + np.flatnonzero((np.diff(shards) != 0) | (np.diff(row_in_shard) != 1))
        cuts = [0, *breaks.tolist(), len(rows)] if out.size else []
        buffer = out.data.cast("B") if cuts else memoryview(b"")
        pieces = []
        for a, b in pairwise(cuts):
            offset = self._shard_with(key, int(shards[a])).offsets[key]
            offset += int(row_in_shard[a]) * size
            pieces.append((int(shards[a]), offset, buffer[a * size : b * size]))
        self._reader.read(pieces)
        values = torch.from_numpy(out).view(TORCH_DTYPES[stored])
        return values if dtype is None else values.to(dtype)

    def caption_to_image(self, captions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the image of each of n captions, (n,) int64."""
        return np.searchsorted(self.caption_offsets, np.asarray(captions), "right") - 1

    def _offsets(self, s: int) -> np.ndarray:
        return self._shard(s).arrays["caption_offsets"]

    def _shard(self, s: int) -> FeatureShard:
        if s not in self._shards:
            self._shards[s] = FeatureShard(self.path / self._names[s])
            self._reader.expected_ids[s] = self._shards[s].file_id
        return self._shards[s]

    def _shard_with(self, key: str, s: int) -> FeatureShard:
        if key not in self._shard(s).arrays:
            raise UserError(f"{self.path} has captions without images, so no {key} of them")
        return self._shard(s)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shards": {}, "_reader": PieceReader(self._reader.paths)}


def is_caption_store(path: str | os.PathLike) -> bool:
    """Return whether a folder is a feature store of captions alone, finished or not."""
    try:
        folder = ShardFolder(path, FORMAT)
    except (FileNotFoundError, UserError):
        return False
    return not folder.manifest["settings"].get("images", True)
