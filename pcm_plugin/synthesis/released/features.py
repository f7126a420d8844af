"""The released features, an ``.npz`` an image, gathered into a feature store."""

import contextlib
import functools
import io
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import fingerprint
from pcm_plugin.formats.clip_head import write_clip_head
from pcm_plugin.formats.feature_shard import FORMAT, write_feature_shard
from pcm_plugin.formats.released_annotations import ReleasedPair
from pcm_plugin.formats.shards import Shard, ShardFolder, shard_name
from pcm_plugin.models.backbones.clip_weights import model_identity
from pcm_plugin.models.backbones.open_clip_backbone import OpenCLIPBackbone
from pcm_plugin.models.backbones.weights_file import weights_identity
from pcm_plugin.synthesis.extract.annotation_scores import (
    check_clip_score_source,
    choose_clip_scores,
    refuse_missing_scores,
)
from pcm_plugin.synthesis.extract.extract_features import CLIP_SCORE_SCALE, encode_texts
from pcm_plugin.synthesis.extract.sources import PROBE_FILES
from pcm_plugin.synthesis.ranks import Rank, deterministic_cpu_threads
from pcm_plugin.synthesis.sharing import claim_shards


@dataclass(frozen=True)
class ImportSettings:
    """How the released features are read and kept.

    Attributes:
        model: The CLIP that made them, by open_clip's name; it gives the head and the captions'
            features, which were not released.
        pretrained: open_clip's tag of its weights, or a file.
        path_template: Where an image's file lies, with ``{split_id}`` and ``{image_id}``. Defaults to
            where the released loader looks: ``'img_sp{split_id}/{image_id}.npz'``, or
            ``'img/{image_id}.npz'`` if the annotations know no parts.
        dtype: ``'float16'``, ``'bfloat16'`` or ``'float32'``. Defaults to ``'float16'``.
        shard_size: Images a shard. Defaults to 1,000.
        clip_score_source: See :class:`~pcm_plugin.synthesis.extract.extract_features.ExtractSettings`.
            Defaults to ``'auto'``.
    """

    model: str
    pretrained: str | None = None
    path_template: str | None = None
    dtype: str = "float16"
    shard_size: int = 1000
    clip_score_source: str = "auto"

    def __post_init__(self) -> None:
        check_clip_score_source(self.clip_score_source)
        if self.dtype not in ("float16", "bfloat16", "float32"):
            raise UserError(f"dtype={self.dtype!r}: give float16, bfloat16 or float32")
        if self.shard_size < 1:
            raise UserError(f"shard_size={self.shard_size}: give at least 1")


def import_features(
    root: str | os.PathLike,
    pairs: Sequence[ReleasedPair],
    settings: ImportSettings,
    out: str | os.PathLike,
    device: str | None = None,
    workers: int = 4,
    rank: Rank | None = None,
    skip_missing: bool = False,
) -> ShardFolder:
    """Write a feature store of the released ``.npz`` files.

    A run over a store that has shards already makes those that are missing; several ranks share
    them. A file that cannot be read is listed under ``skipped`` in its shard's record.

    Args:
        root: Folder of the files: ``features`` (N, Dv) and ``g_feature`` (1, Dc) each.
        pairs: The images and their captions.
        settings: How to read and keep them.
        out: Folder of the store.
        device: Where the captions are encoded. Defaults to a GPU if there is one.
        workers: Threads that read files. Defaults to 4.
        rank: Which of several processes this is. Defaults to what torchrun or srun say.
        skip_missing: Whether to leave out images whose file is not there, as those that cannot be
            read. Defaults to False.

    Returns:
        The finished store's folder.

    Raises:
        MissingFileError: If a file is not where the path_template says.
        UserError: If the features are not of this CLIP's width, the store was made with other
            settings, not one file of a shard, or of the first, can be read, or CLIP scores are to
            be kept that the annotations do not have.
    """
    root, rank = Path(root), rank or Rank.from_environment()
    is_scored = any(pair.clip_scores is not None for pair in pairs)
    if not is_scored:
        refuse_missing_scores(settings.clip_score_source)
    first = [_path(root, pair, settings) for pair in pairs[:PROBE_FILES]]
    if not any(path.is_file() for path in first):
        raise MissingFileError(
            f"no {first[0]}: give --path-template, such as 'img_sp{{split_id}}/{{image_id}}.npz'"
        )
    size = settings.shard_size
    chunks = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    plan = [
        Shard(shard_name(index), len(chunk), fingerprint([list(pair) for pair in chunk]))
        for index, chunk in enumerate(chunks)
    ]
    source = {"released": fingerprint([shard.digest for shard in plan]), "shard_size": size}
    device = device or rank.device()
    clip = OpenCLIPBackbone(settings.model, settings.pretrained)
    shape = _shape_of(first, clip)
    pool = math.isqrt(clip.num_patches // max(1, shape[0]))
    if pool**2 * shape[0] != clip.num_patches:
        raise UserError(
            f"{root} has {shape[0]} patches an image, which {clip.model_name} with its "
            f"{clip.num_patches} does not give, pooled or not: give the CLIP that made them"
        )
    made_with = {
        "model": model_identity(settings.model),
        "pretrained": weights_identity(settings.pretrained),
        "pool": pool,
        "dtype": settings.dtype,
        "caption_template": "{}",
        "source": source,
    }
    chosen = "model"
    if is_scored:
        chosen = settings.clip_score_source
        if chosen == "auto":
            chosen = _compare_clip_scores(root, pairs[:PROBE_FILES], settings, clip)
        made_with["clip_score_source"] = chosen
    settings = replace(settings, clip_score_source=chosen)
    folder = ShardFolder.open_for_write(out, FORMAT, made_with, plan)
    head = write_clip_head(folder, None if clip.patches_in_joint_space else clip.clip_head())
    clip = clip.to(device)
    with deterministic_cpu_threads(device), ThreadPoolExecutor(workers) as threads:
        for index, tick in claim_shards(folder, plan, rank, "import"):
            part = functools.partial(_read, root, settings, shape, skip_missing)
            found = list(zip(chunks[index], threads.map(part, chunks[index]), strict=True))
            tick(plan[index].count)
            _write(folder, plan[index], found, settings, shape, clip, head)
    return folder


def _read(
    root: Path,
    settings: ImportSettings,
    shape: tuple[int, ...],
    skip_missing: bool,
    pair: ReleasedPair,
) -> tuple[Tensor, Tensor] | str:
    path = _path(root, pair, settings)
    try:
        patches, whole = read_npz(path)
    except FileNotFoundError:
        if not skip_missing:
            raise MissingFileError(
                f"no {path}: bring it, or leave out all that are missing with --skip-missing"
            ) from None
        return "missing"
    except ValueError as error:
        return str(error)
    if (*patches.shape, len(whole)) != shape:
        return f"features {tuple(patches.shape)} and ({len(whole)},), others have {shape}"
    return patches, whole


def _write(
    folder: ShardFolder,
    shard: Shard,
    found: list[tuple[ReleasedPair, tuple[Tensor, Tensor] | str]],
    settings: ImportSettings,
    shape: tuple[int, int, int],
    clip: OpenCLIPBackbone,
    head: str | None,
) -> None:
    kept = [(pair, feats) for pair, feats in found if not isinstance(feats, str)]
    skipped = {pair.key: feats for pair, feats in found if isinstance(feats, str)}
    if not kept and shard.is_representative():
        image_id, reason = next(iter(skipped.items()))
        raise UserError(f"not one file of {shard.name} can be read; {image_id}: {reason}")
    texts = encode_texts(clip, [text for pair, _ in kept for text in pair.captions]).cpu()
    patches, whole = torch.empty(0, *shape[:2]), torch.empty(0, shape[2])
    if kept:
        patches, whole = (torch.stack(part) for part in zip(*(f for _, f in kept), strict=True))
    write_feature_shard(
        folder,
        shard,
        [{"image_id": pair.key, "captions": pair.captions} for pair, _ in kept],
        patches.to(getattr(torch, settings.dtype)),
        whole,
        texts,
        _scores([pair for pair, _ in kept], whole, texts, settings),
        head,
        skipped=skipped,
    )


def _compare_clip_scores(
    root: Path, pairs: Sequence[ReleasedPair], settings: ImportSettings, clip: OpenCLIPBackbone
) -> str:
    """Compare the annotations' CLIP scores of some images with this CLIP's."""
    annotated: list[float] = []
    computed: list[float] = []
    for pair in pairs:
        path = _path(root, pair, settings)
        with contextlib.suppress(FileNotFoundError, ValueError):
            if pair.clip_scores is not None:
                _, whole = read_npz(path)
                cosine = encode_texts(clip, pair.captions).cpu() @ whole
                annotated += pair.clip_scores
                computed += (CLIP_SCORE_SCALE * cosine).tolist()
    return choose_clip_scores("auto", annotated, computed, settings.model)


def _scores(
    pairs: list[ReleasedPair], whole: Tensor, texts: Tensor, settings: ImportSettings
) -> Tensor:
    """Return the annotations' CLIP scores if they are kept, and computed ones otherwise."""
    owners = torch.tensor([len(pair.captions) for pair in pairs], dtype=torch.int64)
    found = CLIP_SCORE_SCALE * (texts * whole.repeat_interleave(owners, dim=0)).sum(-1)
    if settings.clip_score_source == "model":
        return found
    parts = zip(pairs, found.split(owners.tolist()), strict=True)
    each = [own if p.clip_scores is None else torch.tensor(p.clip_scores) for p, own in parts]
    return torch.cat(each) if each else found


def read_npz(path: Path) -> tuple[Tensor, Tensor]:
    """Patch features (N, Dv) and the normalised global feature (Dc,) of a released file.

    Raises:
        OSError: If it is missing, or the disk fails.
        UserError: If it is damaged or holds something else.
    """
    data = path.read_bytes()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as content:
            patches, whole = content["features"], content["g_feature"]
    except Exception as error:  # readers of broken files raise whatever they meet
        what = "it is no .npz" if not data.startswith(b"PK") else f"{type(error).__name__}: {error}"
        raise UserError(f"{path} cannot be read: {what}") from None
    if patches.ndim != 2 or whole.ndim != 2 or len(whole) != 1:
        raise UserError(f"features {patches.shape}, g_feature {whole.shape}: not (N, Dv), (1, Dc)")
    return torch.from_numpy(patches).float(), F.normalize(torch.from_numpy(whole[0]).float(), dim=0)


def _shape_of(paths: list[Path], clip: OpenCLIPBackbone) -> tuple[int, int, int]:
    """N, Dv and Dc of the first file that can be read, which all others must have."""
    for path in paths:
        try:
            patches, whole = read_npz(path)
            break
        except (FileNotFoundError, ValueError) as error:
            reason = error
    else:
        raise UserError(f"none of the first {len(paths)} files can be read; the last: {reason}")
    if (patches.shape[1], len(whole)) != (clip.patch_dim, clip.clip_dim):
        raise UserError(
            f"{path} has features of width {patches.shape[1]} and {len(whole)}, but "
            f"{clip.model_name} has {clip.patch_dim} and {clip.clip_dim}: give the CLIP that made "
            "them"
        )
    return (*patches.shape, len(whole))


def _path(root: Path, pair: ReleasedPair, settings: ImportSettings) -> Path:
    known = "img/{image_id}.npz" if pair.split_id is None else "img_sp{split_id}/{image_id}.npz"
    return root / pair.format_path(settings.path_template or known)
