"""Feature extraction: images and captions to a feature store, with any ViT CLIP of open_clip."""

import functools
import itertools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.clip_head import has_clip_head, write_clip_head
from pcm_plugin.formats.feature_shard import FORMAT, write_feature_shard
from pcm_plugin.formats.images.folder import printable
from pcm_plugin.formats.images.image_io import read_image
from pcm_plugin.formats.shards import Shard, ShardFolder
from pcm_plugin.models.backbones.open_clip_backbone import OpenCLIPBackbone
from pcm_plugin.synthesis.extract.annotation_scores import (
    COMPARED_IMAGES,
    ScoreChoice,
    choose_clip_scores,
    refuse_missing_scores,
)
from pcm_plugin.synthesis.extract.clip_features import (
    ClipFeatures,
    compute_features,
    empty_features,
)
from pcm_plugin.synthesis.extract.settings import ExtractSettings
from pcm_plugin.synthesis.extract.sources import Source, SourceImage
from pcm_plugin.synthesis.ranks import Rank, deterministic_cpu_threads
from pcm_plugin.synthesis.sharing import claim_shards

LoadedImage = tuple[SourceImage, Tensor | str]
"""An image and its preprocessed pixels, or the reason why it cannot be read."""

logger = logging.getLogger(__name__)


def extract_features(
    source: Source,
    settings: ExtractSettings,
    out: str | os.PathLike,
    batch_size: int = 32,
    device: str | None = None,
    workers: int = 4,
    rank: Rank | None = None,
    skip_missing: bool = False,
) -> ShardFolder:
    """Compute the features of all images and captions of a source.

    If the store has shards already, only the missing ones are made. Several ranks share them and
    return when the store is complete. An image that cannot be decoded is logged, skipped, and
    listed under ``skipped`` in the record of its shard.

    Args:
        source: Images with captions, see
            :func:`~pcm_plugin.synthesis.extract.open_source.open_source`.
        settings: Settings of the features.
        out: Folder of the store, see :mod:`pcm_plugin.formats.feature_store`.
        batch_size: Images per batch. Defaults to 32.
        device: Device of the model. Defaults to a GPU if there is one.
        workers: Threads that read and resize images. Defaults to 4.
        rank: Rank of this process. Defaults to that of torchrun or srun.
        skip_missing: Whether to skip images whose file is missing, like those that cannot be
            decoded. Defaults to False, since a disk may not be mounted.

    Returns:
        The finished store.

    Raises:
        MissingFileError: If the folder of the model or an image is missing.
        UserError: If the store was made with other settings or from other images; if no image of
            the first shard, or of a large one, can be read; if a number is out of range; or if
            ``clip_score_source`` is ``'annotation'`` and the annotations have no CLIP scores.
    """
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    if not source.num_scored:
        refuse_missing_scores(settings.clip_score_source)
    rank = rank or Rank.from_environment()
    record = settings.as_record() | {"source": source.settings}
    device = device or rank.device()

    @functools.cache
    def backbone() -> OpenCLIPBackbone:
        return settings.load_clip()

    if source.num_scored:
        choice = choose_clip_scores(settings.clip_score_source, (), (), settings.model)
        if settings.clip_score_source == "auto":
            choice = _compare_clip_scores(source, settings, backbone())
        if rank.index == 0:
            choice.log(source.num_scored, source.num_images)
        settings = replace(settings, clip_score_source=choice.source)
        record["clip_score_source"] = choice.source
    folder = ShardFolder.open_for_write(out, FORMAT, record, source.shards)

    @functools.cache
    def model() -> tuple[OpenCLIPBackbone, str | None]:
        # Loaded only by a process that has a shard to make.
        clip = backbone()
        head = write_clip_head(folder, None if clip.patches_in_joint_space else clip.clip_head())
        return clip.to(device), head

    with deterministic_cpu_threads(device), ThreadPoolExecutor(workers) as pool:
        for index, tick in claim_shards(folder, source.shards, rank, "extract", source.unit):
            clip, head = model()
            shard = source.shards[index]
            load = functools.partial(_load_image, clip, skip_missing)
            images = _map_ahead(pool, load, source.read(shard), 2 * batch_size)
            _extract_shard(folder, images, shard, settings, clip, batch_size, tick, head)
    if not has_clip_head(folder):
        model()
    return folder


def _load_image(clip: OpenCLIPBackbone, skip_missing: bool, image: SourceImage) -> LoadedImage:
    """Return the preprocessed image, or the reason it cannot be decoded. I/O errors propagate."""
    try:
        pixels = read_image(image.data())
    except FileNotFoundError as error:
        if not skip_missing:
            raise MissingFileError(
                f"{error}: restore it, or skip all images that are missing with --skip-missing"
            ) from None
        return image, "missing"
    except UserError as error:
        return image, str(error)
    return image, clip.preprocess(pixels)


def _compare_clip_scores(
    source: Source, settings: ExtractSettings, clip: OpenCLIPBackbone
) -> ScoreChoice:
    """Compare the CLIP scores of the first images that have annotated ones."""
    annotated: list[float] = []
    computed: list[float] = []
    images = itertools.chain.from_iterable(map(source.read, source.shards))
    scored = (image for image in images if image.clip_scores is not None)
    for image in itertools.islice(scored, COMPARED_IMAGES):
        _, pixels = _load_image(clip, True, image)
        if isinstance(pixels, Tensor):
            feats = compute_features(clip, pixels.unsqueeze(0), [image.captions], settings)
            annotated += image.clip_scores or []
            computed += feats.clip_scores.tolist()
    return choose_clip_scores("auto", annotated, computed, settings.model)


@torch.inference_mode()
def _extract_shard(
    folder: ShardFolder,
    loaded: Iterator[LoadedImage],
    shard: Shard,
    settings: ExtractSettings,
    clip: OpenCLIPBackbone,
    batch_size: int,
    tick: Callable[[int], None],
    head: str | None,
) -> None:
    device = next(clip.clip.parameters()).device
    images: list[SourceImage] = []
    skipped: dict[str, str] = {}
    parts: list[ClipFeatures] = []
    while batch := list(itertools.islice(loaded, batch_size)):
        for image, reason in batch:
            if isinstance(reason, str):
                skipped[image.name] = reason
                logger.warning("skipped %s: %s", printable(image.name), reason)
        readable = [(image, pixels) for image, pixels in batch if isinstance(pixels, Tensor)]
        if readable:
            new = [image for image, _ in readable]
            pixels = torch.stack([pixels for _, pixels in readable]).to(device)
            feats = compute_features(clip, pixels, [image.captions for image in new], settings)
            if settings.clip_score_source == "annotation":
                feats = feats._replace(clip_scores=_annotated_scores(new, feats.clip_scores))
            images += new
            parts.append(feats)
        tick(sum(image.num_samples for image, _ in batch))
    if not images and shard.is_representative():
        name, reason = next(iter(skipped.items()))
        raise UserError(f"no image of {shard.name} can be read; {name}: {reason}")
    dtype = getattr(torch, settings.dtype)
    feats = ClipFeatures(
        *map(torch.cat, zip(*(parts or [empty_features(clip, settings)]), strict=True))
    )
    write_feature_shard(
        folder,
        shard,
        [image.as_record() for image in images],
        feats.patch_feats.to(dtype),
        feats.global_feats.to(dtype),
        feats.caption_feats.to(dtype),
        feats.clip_scores,
        head,
        skipped=skipped,
    )


def _annotated_scores(images: list[SourceImage], computed: Tensor) -> Tensor:
    """Return the CLIP scores (m,) of the annotations, or the computed ones where there are none."""
    per_image = computed.split([len(image.captions) for image in images])
    return torch.cat(
        [
            scores if image.clip_scores is None else torch.tensor(image.clip_scores)
            for image, scores in zip(images, per_image, strict=True)
        ]
    )


def _map_ahead(
    pool: ThreadPoolExecutor, function: Callable, items: Iterable, depth: int
) -> Iterator[Any]:
    """Like ``pool.map``, but at most ``depth`` items ahead of the consumer."""
    waiting: deque = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
