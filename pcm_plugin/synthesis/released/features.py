"""Import of released features: one ``.npz`` file per image to a feature store."""

import functools
import itertools
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
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
    COMPARED_IMAGES,
    ScoreChoice,
    check_clip_score_source,
    choose_clip_scores,
    refuse_missing_scores,
)
from pcm_plugin.synthesis.extract.clip_features import CLIP_SCORE_SCALE, encode_texts
from pcm_plugin.synthesis.extract.settings import check_dtype
from pcm_plugin.synthesis.extract.sources import PROBE_FILES
from pcm_plugin.synthesis.ranks import Rank, deterministic_cpu_threads
from pcm_plugin.synthesis.released.npz import Features, read_npz
from pcm_plugin.synthesis.sharing import claim_shards


@dataclass(frozen=True)
class ImportSettings:
    """Settings on which the imported store depends, in addition to the files.

    Attributes:
        model: open_clip's name of the CLIP that made the features. Its head and the caption
            features, which were not released, are computed.
        pretrained: Weights: a tag of open_clip, or a file.
        path_template: Path of an image's file, with ``{split_id}`` and ``{image_id}``. Defaults to
            the paths of the released loader: ``'img_sp{split_id}/{image_id}.npz'``, or
            ``'img/{image_id}.npz'`` if the annotations have no ``split_id``.
        dtype: ``'float16'``, ``'bfloat16'`` or ``'float32'``. Defaults to ``'float16'``.
        shard_size: Images per shard. Defaults to 1,000.
        clip_score_source: See :class:`~pcm_plugin.synthesis.extract.settings.ExtractSettings`.
            Defaults to ``'auto'``.

    Raises:
        UserError: If a setting is invalid.
    """

    model: str
    pretrained: str | None = None
    path_template: str | None = None
    dtype: str = "float16"
    shard_size: int = 1000
    clip_score_source: str = "auto"

    def __post_init__(self) -> None:
        check_clip_score_source(self.clip_score_source)
        check_dtype(self.dtype)
        if self.shard_size < 1:
            raise UserError(f"shard_size must be at least 1, got {self.shard_size}")


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
    """Write released ``.npz`` files to a feature store.

    If the store has shards already, only the missing ones are made; several ranks share them. A
    file that cannot be read is listed under ``skipped`` in the record of its shard.

    Args:
        root: Folder of the files. Each contains ``features`` (N, Dv) and ``g_feature`` (1, Dc).
        pairs: Images with their captions.
        settings: Settings of the import.
        out: Folder of the store.
        device: Device on which captions are encoded. Defaults to a GPU if there is one.
        workers: Threads that read files. Defaults to 4.
        rank: Rank of this process. Defaults to that of torchrun or srun.
        skip_missing: Whether to skip images whose file is missing, like those that cannot be read.
            Defaults to False.

    Returns:
        The finished store.

    Raises:
        MissingFileError: If a file is missing.
        UserError: If the features have other widths than those of the CLIP; the store was made
            with other settings; no file of the first shard, or of a large one, can be read; or
            ``clip_score_source`` is ``'annotation'`` and the annotations have no CLIP scores.
    """
    root, rank = Path(root), rank or Rank.from_environment()
    num_scored = sum(pair.clip_scores is not None for pair in pairs)
    if not num_scored:
        refuse_missing_scores(settings.clip_score_source)
    first = [_path(root, pair, settings) for pair in pairs[:PROBE_FILES]]
    if not any(path.is_file() for path in first):
        raise MissingFileError(
            f"no file {first[0]}: set the paths with --path-template, such as "
            "'img_sp{split_id}/{image_id}.npz'"
        )
    size = settings.shard_size
    chunks = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    plan = [
        Shard(shard_name(index), len(chunk), fingerprint([list(pair) for pair in chunk]))
        for index, chunk in enumerate(chunks)
    ]
    device = device or rank.device()
    clip = OpenCLIPBackbone(settings.model, settings.pretrained)
    shape = _shape_of(first, clip)
    record = {
        "model": model_identity(settings.model),
        "pretrained": weights_identity(settings.pretrained),
        "pool": _pool_of(shape[0], clip, root),
        "dtype": settings.dtype,
        "caption_template": "{}",
        "source": {"released": fingerprint([s.digest for s in plan]), "shard_size": size},
    }
    if num_scored:
        choice = choose_clip_scores(settings.clip_score_source, (), (), settings.model)
        if settings.clip_score_source == "auto":
            choice = _compare_clip_scores(root, pairs, settings, clip)
        if rank.index == 0:
            choice.log(num_scored, len(pairs))
        settings = replace(settings, clip_score_source=choice.source)
        record["clip_score_source"] = choice.source
    else:
        settings = replace(settings, clip_score_source="model")
    folder = ShardFolder.open_for_write(out, FORMAT, record, plan)
    head = write_clip_head(folder, None if clip.patches_in_joint_space else clip.clip_head())
    clip = clip.to(device)
    with deterministic_cpu_threads(device), ThreadPoolExecutor(workers) as threads:
        for index, tick in claim_shards(folder, plan, rank, "import"):
            read = functools.partial(_read, root, settings, shape, skip_missing)
            feats = list(zip(chunks[index], threads.map(read, chunks[index]), strict=True))
            tick(plan[index].count)
            _write(folder, plan[index], feats, settings, shape, clip, head)
    return folder


def _read(
    root: Path,
    settings: ImportSettings,
    shape: tuple[int, ...],
    skip_missing: bool,
    pair: ReleasedPair,
) -> Features | str:
    """Return the features of an image, or the reason why they cannot be read."""
    path = _path(root, pair, settings)
    try:
        patch_feats, global_feat = read_npz(path)
    except FileNotFoundError:
        if not skip_missing:
            raise MissingFileError(
                f"no file {path}: restore it, or skip all that are missing with --skip-missing"
            ) from None
        return "missing"
    except UserError as error:
        return str(error)
    if (*patch_feats.shape, len(global_feat)) != shape:
        return (
            f"features {tuple(patch_feats.shape)} and g_feature (1, {len(global_feat)}), but the "
            f"first file has {shape[:2]} and (1, {shape[2]})"
        )
    return patch_feats, global_feat


def _write(
    folder: ShardFolder,
    shard: Shard,
    results: list[tuple[ReleasedPair, Features | str]],
    settings: ImportSettings,
    shape: tuple[int, int, int],
    clip: OpenCLIPBackbone,
    head: str | None,
) -> None:
    feats = [result for _, result in results if not isinstance(result, str)]
    pairs = [pair for pair, result in results if not isinstance(result, str)]
    skipped = {pair.key: result for pair, result in results if isinstance(result, str)}
    if not pairs and shard.is_representative():
        image_id, reason = next(iter(skipped.items()))
        raise UserError(f"no file of {shard.name} can be read; {image_id}: {reason}")
    caption_feats = encode_texts(clip, [text for pair in pairs for text in pair.captions]).cpu()
    patch_feats, global_feats = torch.empty(0, *shape[:2]), torch.empty(0, shape[2])
    if feats:
        patch_feats, global_feats = (torch.stack(part) for part in zip(*feats, strict=True))
    write_feature_shard(
        folder,
        shard,
        [{"image_id": pair.key, "captions": pair.captions} for pair in pairs],
        patch_feats.to(getattr(torch, settings.dtype)),
        global_feats,
        caption_feats,
        _clip_scores(pairs, global_feats, caption_feats, settings),
        head,
        skipped=skipped,
    )


def _compare_clip_scores(
    root: Path, pairs: Sequence[ReleasedPair], settings: ImportSettings, clip: OpenCLIPBackbone
) -> ScoreChoice:
    """Compare the CLIP scores of the first images that have annotated ones."""
    annotated: list[float] = []
    computed: list[float] = []
    scored = (pair for pair in pairs if pair.clip_scores is not None)
    for pair in itertools.islice(scored, COMPARED_IMAGES):
        try:
            _, global_feat = read_npz(_path(root, pair, settings))
        except (FileNotFoundError, ValueError):
            continue
        cosine = encode_texts(clip, pair.captions).cpu() @ global_feat
        annotated += pair.clip_scores or []
        computed += (CLIP_SCORE_SCALE * cosine).tolist()
    return choose_clip_scores("auto", annotated, computed, settings.model)


def _clip_scores(
    pairs: list[ReleasedPair], global_feats: Tensor, caption_feats: Tensor, settings: ImportSettings
) -> Tensor:
    """Return the CLIP scores (m,) of the annotations if they are kept, and computed ones else."""
    counts = torch.tensor([len(pair.captions) for pair in pairs], dtype=torch.int64)
    cosines = (caption_feats * global_feats.repeat_interleave(counts, dim=0)).sum(-1)
    computed = CLIP_SCORE_SCALE * cosines
    if settings.clip_score_source == "model" or not pairs:
        return computed
    per_image = zip(pairs, computed.split(counts.tolist()), strict=True)
    return torch.cat(
        [own if p.clip_scores is None else torch.tensor(p.clip_scores) for p, own in per_image]
    )


def _shape_of(paths: list[Path], clip: OpenCLIPBackbone) -> tuple[int, int, int]:
    """Return N, Dv and Dc of the first readable file, which all others must have."""
    for path in paths:
        try:
            patch_feats, global_feat = read_npz(path)
            break
        except (FileNotFoundError, ValueError) as error:
            reason = error
    else:
        raise UserError(f"none of the first {len(paths)} files can be read; the last: {reason}")
    num_patches, patch_dim = patch_feats.shape
    if (patch_dim, len(global_feat)) != (clip.patch_dim, clip.clip_dim):
        raise UserError(
            f"{path} has features of width {patch_dim} and {len(global_feat)}, but those of "
            f"{clip.model_name} have {clip.patch_dim} and {clip.clip_dim}: pass the CLIP that made "
            "them"
        )
    return num_patches, patch_dim, len(global_feat)


def _pool_of(num_patches: int, clip: OpenCLIPBackbone, root: Path) -> int:
    """Return the side of the windows over which patches were averaged."""
    pool = math.isqrt(clip.num_patches // max(1, num_patches))
    if pool**2 * num_patches != clip.num_patches:
        raise UserError(
            f"the images of {root} have {num_patches} patches each, which {clip.model_name} with "
            f"its {clip.num_patches} patches does not produce with any pooling: pass the CLIP that "
            "made them"
        )
    return pool


def _path(root: Path, pair: ReleasedPair, settings: ImportSettings) -> Path:
    default = "img/{image_id}.npz" if pair.split_id is None else "img_sp{split_id}/{image_id}.npz"
    return root / pair.format_path(settings.path_template or default)
