"""The feature store: CLIP features and captions of many images in a few memory-mapped files.

A store is a folder:

- ``manifest.json``: see :class:`~pcm_plugin.formats.shards.ShardFolder`; its ``info`` holds
  ``num_patches`` N, ``patch_dim`` Dv, ``clip_dim`` Dc and ``dtype``;
- ``shard-00000.safetensors`` with, for the n images and m captions of the shard,
  ``patch_feats`` (n, N, Dv), before ``ln_post``; ``global_feats`` (n, Dc) and ``caption_feats``
  (m, Dc), each row of length 1, all three of ``dtype``; ``clip_scores`` (m,) float32,
  2.5 * cosine; ``caption_offsets`` (n + 1,) int64: image i has the captions
  ``offsets[i]:offsets[i + 1]``;
- ``shard-00000.jsonl``: a line an image, ``{"image_id": str, "captions": [str, ...]}``, and
  ``"file_name"`` where the images came as files;
- ``clip_head.safetensors``: ``ln_post.weight``, ``ln_post.bias`` (Dv,) and ``proj`` (Dv, Dc).
"""

import bisect
import functools
import json
import math
import os
import resource
import shlex
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import fingerprint, write_bytes
from pcm_plugin.formats.clip_head import CLIP_HEAD
from pcm_plugin.formats.image_ids import refuse_repeated
from pcm_plugin.formats.shards import Shard, ShardFolder
from pcm_plugin.formats.tensor_file import write_tensors

FORMAT = "pcm-features"

_DTYPES = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "I64": torch.int64,
}
_RAW = {"F16": np.float16, "BF16": np.uint16, "F32": np.float32, "I64": np.int64}
_MOST_OPEN = min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)


def write_shard(
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
    """Write one shard of a store and list it.

    Args:
        folder: The store, opened with ``ShardFolder.open_for_write(path, FORMAT, ...)``.
        shard: Which shard it is.
        images: n dicts with ``image_id``, ``captions`` and, optionally, ``file_name``.
        patch_feats: (n, N, Dv), in the dtype to be stored.
        global_feats: (n, Dc), L2-normalised.
        caption_feats: (m, Dc), L2-normalised, in the order of the images and their captions.
        clip_scores: (m,) 2.5 * cosine.
        head: SHA-256 of the store's ``clip_head.safetensors``; None where there is none, or it is
            not known.
        **record: Further values for the shard's record in the manifest.

    Raises:
        UserError: If the sizes do not agree, or two images share an id.
    """
    refuse_repeated(
        lambda: (image["image_id"] for image in images),
        f"image ids of {folder.path}, {shard.name},",
        "give every image an id of its own",
    )
    counts = [len(image["captions"]) for image in images]
    if not len(images) == len(patch_feats) == len(global_feats):
        raise UserError(
            f"{len(images)} images, {len(patch_feats)} patch_feats, {len(global_feats)} "
            "global_feats: give one row an image"
        )
    if not sum(counts) == len(caption_feats) == len(clip_scores):
        raise UserError(
            f"{sum(counts)} captions, {len(caption_feats)} caption_feats, {len(clip_scores)} "
            "clip_scores: give one row a caption"
        )
    dtype = patch_feats.dtype
    tensors = {
        "patch_feats": patch_feats,
        "global_feats": global_feats.to(dtype),
        "caption_feats": caption_feats.to(dtype),
        "clip_scores": clip_scores.float(),
        "caption_offsets": torch.tensor([0, *counts]).cumsum(0),
    }
    name = shard.name
    lines = (json.dumps(image, ensure_ascii=False) + "\n" for image in images)
    write_bytes(folder.path / f"{name}.jsonl", "".join(lines).encode())
    write_tensors(folder.path / f"{name}.safetensors", tensors)
    info = {
        "num_patches": patch_feats.shape[1],
        "patch_dim": patch_feats.shape[2],
        "clip_dim": global_feats.shape[1],
        "dtype": str(dtype).removeprefix("torch."),
        "clip_head": head,
    }
    files = [f"{name}.safetensors", f"{name}.jsonl"]
    folder.commit(shard, files, len(images), info, captions=sum(counts), **record)


class FeatureStore:
    """Random access to a feature store.

    Images are numbered 0 to ``len(store) - 1`` over all shards, captions 0 to
    ``store.num_captions - 1``; the captions of image i are
    ``store.caption_offsets[i]:store.caption_offsets[i + 1]``. Small tensors are mapped, rows
    of large ones are read where they lie, and only when asked for, so that a process's memory does
    not grow with the store, and worker processes share one copy in the page cache.

    Args:
        path: The store's folder.

    Raises:
        MissingFileError: If there is no store at ``path``.
        UserError: If it is unfinished, damaged or of another format.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        try:
            folder = ShardFolder(self.path, FORMAT, "tools/extract.py")
        except FileNotFoundError:
            raise MissingFileError(
                f"no feature store at {self.path}; make one with: "
                f"python tools/extract.py IMAGES --model MODEL --out {shlex.quote(str(self.path))}"
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
        self.identity = fingerprint({name: r["files"] for name, r in folder.shards.items()})
        self.digests: list[str] = [record["digest"] for record in folder.shards.values()]
        self._names = list(folder.shards)
        counts = [record["count"] for record in folder.shards.values()]
        captions = [record["captions"] for record in folder.shards.values()]
        self._first_image = np.cumsum([0, *counts])
        self._first_images: list[int] = self._first_image.tolist()
        self._first_caption = np.cumsum([0, *captions])
        self._shards: dict[int, _Shard] = {}
        self._files = _OpenFiles([f"{self.path}/{name}.safetensors" for name in self._names])
        self.caption_offsets = np.concatenate(
            [[0], *(self._offsets(s)[1:] + self._first_caption[s] for s in range(len(counts)))]
        )

    def __len__(self) -> int:
        """Number of images."""
        return int(self._first_image[-1])

    @property
    def num_captions(self) -> int:
        """Number of captions of all images."""
        return int(self._first_caption[-1])

    @property
    def clip_head(self) -> Path:
        """File with CLIP's frozen ``ln_post`` and ``proj``."""
        return self.path / CLIP_HEAD

    @property
    def patches_in_joint_space(self) -> bool:
        """Whether patches are in the joint space already, so that no CLIP head comes with them."""
        return self.patch_dim == self.clip_dim and not self.clip_head.is_file()

    @property
    def image_ids(self) -> list[str]:
        """Ids of all images."""
        return [self.record(i)["image_id"] for i in range(len(self))]

    @property
    def clip_scores(self) -> np.ndarray:
        """(num_captions,) float32: 2.5 * cosine of each caption and its image."""
        parts = (self._shard(s).arrays["clip_scores"] for s in range(len(self._names)))
        return np.concatenate([*parts])

    def record(self, i: int) -> dict[str, Any]:
        """``image_id``, ``captions`` and, where known, ``file_name`` of image i."""
        first = self._first_images
        if not 0 <= i < first[-1]:
            raise IndexError(f"index {i} is outside of 0 to {first[-1] - 1} of {self.path}")
        s = bisect.bisect_right(first, i) - 1
        return json.loads(self._shard(s).line(i - first[s]))

    def digest(self, i: int) -> str:
        """Return the source of the shard of image i: the archive's SHA-256 for generated images."""
        return self.digests[bisect.bisect_right(self._first_images, i) - 1]

    def check_unique_ids(self) -> None:
        """Check that no two images share an id, where ids are used to tell images apart.

        Raises:
            UserError: If some do; the first are named.
        """
        refuse_repeated(
            lambda: (self.record(i)["image_id"] for i in range(len(self))),
            f"image ids of {self.path}",
            "extract it again from images with ids that differ",
        )

    def captions(self, i: int) -> list[str]:
        """The captions of image i."""
        return self.record(i)["captions"]

    def caption(self, j: int) -> str:
        """Caption j."""
        i = int(self.caption_to_image([j])[0])
        return self.captions(i)[j - int(self.caption_offsets[i])]

    def patch_feats(self, i: int) -> Tensor:
        """(N, Dv) float32: patch features of image i, before ``ln_post``."""
        return self.read_rows("patch_feats", [i])[0]

    def global_feats(self, i: int) -> Tensor:
        """(Dc,) float32: CLIP embedding of image i, of length 1."""
        return self.read_rows("global_feats", [i])[0]

    def caption_feats(self, j: int) -> Tensor:
        """(Dc,) float32: CLIP embedding of caption j, of length 1."""
        return self.read_rows("caption_feats", [j])[0]

    def read_rows(
        self,
        key: str,
        indices: Sequence[int] | np.ndarray,
        dtype: torch.dtype | None = torch.float32,
    ) -> Tensor:
        """Several rows at once: faster than one by one, above all from a cold disk.

        Args:
            key: ``'patch_feats'`` or ``'global_feats'``, whose rows are images', or
                ``'caption_feats'``, whose rows are captions'.
            indices: n of them.
            dtype: What to give; None for the dtype of the store. Defaults to float32.

        Returns:
            (n, ...), a copy.

        Raises:
            IndexError: If there is no such row.
        """
        first = self._first_caption if key == "caption_feats" else self._first_image
        wanted = np.asarray(indices, dtype=np.int64)
        outside = (wanted < 0) | (wanted >= first[-1])
        if outside.any():
            raise IndexError(
                f"index {wanted[outside][0]} is outside of 0 to {first[-1] - 1} of {self.path}"
            )
        shards = np.searchsorted(first, wanted, "right") - 1
        inside = wanted - first[shards]
        kind = self._shard(0).dtypes[key]
        out = np.empty((len(wanted), *self._shard(0).arrays[key].shape[1:]), _RAW[kind])
        size = out.dtype.itemsize * math.prod(out.shape[1:])
        # Rows that follow each other are one piece.
        breaks = 1 + np.flatnonzero((np.diff(shards) != 0) | (np.diff(inside) != 1))
        cuts = [0, *breaks.tolist(), len(wanted)] if out.size else []
        buffer = out.data.cast("B") if cuts else memoryview(b"")
        pieces = []
        for a, b in pairwise(cuts):
            place = self._shard(int(shards[a])).starts[key] + int(inside[a]) * size
            pieces.append((int(shards[a]), place, buffer[a * size : b * size]))
        self._files.read(pieces)
        values = torch.from_numpy(out).view(_DTYPES[kind])
        return values if dtype is None else values.to(dtype)

    def caption_to_image(self, captions: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n,) int64: the image of each of n captions."""
        return np.searchsorted(self.caption_offsets, np.asarray(captions), "right") - 1

    def _offsets(self, s: int) -> np.ndarray:
        return self._shard(s).arrays["caption_offsets"]

    def _shard(self, s: int) -> "_Shard":
        if s not in self._shards:
            self._shards[s] = _Shard(self.path / self._names[s])
            self._files.known[s] = self._shards[s].file
        return self._shards[s]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shards": {}, "_files": _OpenFiles(self._files.paths)}


class _OpenFiles:
    """Files that were read last, open: a store may have more shards than a process may open."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths
        self.known: dict[int, tuple[int, ...]] = {}
        self._open: OrderedDict[int, int] = OrderedDict()

    def read(self, pieces: list[tuple[int, int, memoryview]]) -> None:
        """Fill memory from files; many processes may do so at once.

        Args:
            pieces: Number of a file, a place in it, and what to fill from there.

        Raises:
            UserError: If a file is shorter than it was, or another.
        """
        pieces = sorted(pieces, key=lambda piece: piece[:2])
        # What is in the page cache is copied at once; all else is asked for before the first of it
        # is waited for, since a disk has a queue.
        waiting = [piece for piece in pieces if not self._is_read(*piece)]
        for number, place, target in waiting:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(
                    self._descriptor(number), place, len(target), os.POSIX_FADV_WILLNEED
                )
        for number, place, target in waiting:
            while target:
                count = os.preadv(self._descriptor(number), [target], place)
                if not count:
                    path = self.paths[number]
                    raise UserError(f"{path} is cut: run the command that made it again")
                target, place = target[count:], place + count

    def _is_read(self, number: int, place: int, target: memoryview) -> bool:
        try:
            return os.preadv(self._descriptor(number), [target], place, _NOWAIT) == len(target)
        except OSError:  # not cached, or a file system that cannot say
            return False

    def _descriptor(self, number: int) -> int:
        descriptor = self._open.get(number)
        if descriptor is None:
            if len(self._open) >= _MOST_OPEN:
                os.close(self._open.popitem(last=False)[1])
            descriptor = os.open(self.paths[number], os.O_RDONLY)
            if _identity(os.fstat(descriptor)) != self.known[number]:
                os.close(descriptor)
                raise UserError(
                    f"{self.paths[number]} was changed since the store was opened: open it again"
                )
            self._open[number] = descriptor
        else:
            self._open.move_to_end(number)
        return descriptor

    def __del__(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)


class _Shard:
    """One shard, mapped: arrays by name and where they start, and the lines of its ``.jsonl``.

    NumPy has no bfloat16, so that arrays hold raw bits, and ``dtypes`` says what they are.
    """

    def __init__(self, stem: Path) -> None:
        path = stem.with_suffix(".safetensors")
        self.file = _identity(path.stat())
        data = _mapped(path)
        start = 8 + int.from_bytes(data[:8].tobytes(), "little")
        header = json.loads(data[8:start].tobytes())
        header.pop("__metadata__", None)
        self.arrays: dict[str, np.ndarray] = {}
        self.dtypes: dict[str, str] = {}
        self.starts: dict[str, int] = {}
        for key, entry in header.items():
            first, last = (start + offset for offset in entry["data_offsets"])
            self.dtypes[key], self.starts[key] = entry["dtype"], first
            self.arrays[key] = data[first:last].view(_RAW[entry["dtype"]]).reshape(entry["shape"])
        self._text = _mapped(stem.with_suffix(".jsonl"))

    @functools.cached_property
    def _line_ends(self) -> np.ndarray:
        return np.flatnonzero(self._text == ord("\n"))

    def line(self, row: int) -> bytes:
        start = self._line_ends[row - 1] + 1 if row else 0
        return self._text[start : self._line_ends[row]].tobytes()


def _identity(facts: os.stat_result) -> tuple[int, ...]:
    return facts.st_dev, facts.st_ino, facts.st_size


def _mapped(path: Path) -> np.ndarray:
    # Unlike np.memmap and safe_open this keeps no file descriptor, of which a process may have
    # fewer than a large store has shards.
    size = path.stat().st_size
    if not size:
        return np.empty(0, np.uint8)
    return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
