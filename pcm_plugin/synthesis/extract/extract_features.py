"""Images and captions to a feature store, through any CLIP of open_clip."""

import functools
import itertools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.clip_head import has_clip_head, write_clip_head
from pcm_plugin.formats.feature_shard import FORMAT, write_feature_shard
from pcm_plugin.formats.images.folder import printable
from pcm_plugin.formats.images.image_io import read_image
from pcm_plugin.formats.shards import Shard, ShardFolder
from pcm_plugin.models.backbones.clip_weights import model_identity
from pcm_plugin.models.backbones.open_clip_backbone import OpenCLIPBackbone
from pcm_plugin.models.backbones.weights_file import weights_identity
from pcm_plugin.synthesis.extract.annotation_scores import (
    check_clip_score_source,
    choose_clip_scores,
    refuse_missing_scores,
)
from pcm_plugin.synthesis.extract.sources import PROBE_FILES, Source, SourceImage
from pcm_plugin.synthesis.ranks import Rank, deterministic_cpu_threads
from pcm_plugin.synthesis.sharing import claim_shards

CLIP_SCORE_SCALE = 2.5
"""CLIPScore's w (Hessel et al. 2021); the released annotations store 2.5 * cosine."""

_TEXT_BATCH = 256

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExtractSettings:
    """What the features depend on, beside images and captions.

    Attributes:
        model: Name of an open_clip model, or ``'local-dir:FOLDER'``.
        pretrained: open_clip's tag of its weights, or a file; None where the name brings its own.
        pool: Average patches over windows of this many by as many; the released L/14 features
            have 2. Defaults to 1.
        dtype: ``'float16'``, ``'bfloat16'`` or ``'float32'``. Defaults to ``'float16'``.
        caption_template: What CLIP reads for a caption, with one ``{}``. Defaults to ``'{}'``,
            the caption alone. CLIPScore's authors put ``'A photo depicts {}'`` there.
        patches: Whether to store patch features, which are nearly all of a store's size. Refining
            pairs and captioners with ``features='global'`` need none. Defaults to True.
        clip_score_source: For annotations that have CLIP scores: ``'annotation'`` to keep them,
            ``'model'`` to compute them, or ``'auto'`` to keep them if this CLIP made them; see
            :func:`~pcm_plugin.synthesis.extract.annotation_scores.choose_clip_scores`. Defaults to
            ``'auto'``.
    """

    model: str
    pretrained: str | None = None
    pool: int = 1
    dtype: str = "float16"
    caption_template: str = "{}"
    patches: bool = True
    clip_score_source: str = "auto"

    def __post_init__(self) -> None:
        check_clip_score_source(self.clip_score_source)
        if self.dtype not in ("float16", "bfloat16", "float32"):
            raise UserError(f"dtype={self.dtype!r}: give float16, bfloat16 or float32")
        if self.caption_template.count("{}") != 1:
            raise UserError(f"caption_template={self.caption_template!r}: give it one '{{}}'")

    def as_record(self) -> dict[str, Any]:
        """The settings as JSON; local models and weights are named by content, not by place."""
        made_with = {
            "model": model_identity(self.model),
            "pretrained": weights_identity(self.pretrained),
        }
        record = {**self.__dict__, **made_with}
        del record["clip_score_source"]  # the choice is recorded where there is one
        if self.patches:  # as stores record it that were made before there was a choice
            del record["patches"]
        return record


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

    A run over a store that has shards already makes those that are missing; several ranks share
    them, and all return when the store is complete. An image that cannot
    be decoded is logged, listed under ``skipped`` in its shard's record, and left out.

    Args:
        source: What :func:`~pcm_plugin.synthesis.extract.sources.open_source` gives.
        settings: What the features depend on.
        out: Folder of the store, see :mod:`pcm_plugin.formats.feature_store`.
        batch_size: Images encoded at a time. Defaults to 32.
        device: Where to work. Defaults to a GPU if there is one.
        workers: Threads that read and resize images. Defaults to 4.
        rank: Which of several processes this is. Defaults to what torchrun or srun say.
        skip_missing: Whether to leave out images whose file is not there, as those that cannot be
            decoded. Defaults to False: a disk that is away must not make a store without them.

    Returns:
        The finished store's folder.

    Raises:
        MissingFileError: If the model's folder or an image is missing.
        UserError: If the store was made with other settings, or of other images, or if not one
            image of the first shard, or of a large one, can be read, a number is out of range, or
            CLIP scores are to be kept that the annotations do not have.
    """
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        if value < 1:
            raise UserError(f"{name}={value}: give at least 1")
    if not source.has_clip_scores:
        refuse_missing_scores(settings.clip_score_source)
    rank = rank or Rank.from_environment()
    record = settings.as_record() | {"source": source.settings}
    device = device or rank.device()

    @functools.cache
    def backbone() -> OpenCLIPBackbone:
        return OpenCLIPBackbone(settings.model, settings.pretrained, settings.pool)

    if source.has_clip_scores:
        chosen = settings.clip_score_source
        if chosen == "auto":
            chosen = _compare_clip_scores(source, settings, backbone())
        settings = replace(settings, clip_score_source=chosen)
        record["clip_score_source"] = chosen
    folder = ShardFolder.open_for_write(out, FORMAT, record, source.shards)

    @functools.cache
    def model() -> tuple[OpenCLIPBackbone, str | None]:
        # Only who has something to do waits for a model to be loaded.
        clip = backbone()
        head = write_clip_head(folder, None if clip.patches_in_joint_space else clip.clip_head())
        return clip.to(device), head

    with deterministic_cpu_threads(device), ThreadPoolExecutor(workers) as pool:
        for index, tick in claim_shards(folder, source.shards, rank, "extract"):
            clip, head = model()
            shard = source.shards[index]
            read = functools.partial(_load, clip, skip_missing)
            images = _ahead(pool, read, source.read(shard), 2 * batch_size)
            _extract_shard(folder, images, shard, settings, clip, batch_size, tick, head)
    if not has_clip_head(folder):
        model()
    return folder


def _load(
    clip: OpenCLIPBackbone, skip_missing: bool, image: SourceImage
) -> tuple[SourceImage, Tensor | str]:
    """Return the preprocessed image, or the reason it cannot be decoded. I/O errors propagate."""
    try:
        pixels = read_image(image.data())
    except FileNotFoundError as error:
        if not skip_missing:
            raise MissingFileError(
                f"{error}: restore it, or leave out all images that are missing with --skip-missing"
            ) from None
        return image, "missing"
    except ValueError as error:
        return image, str(error)
    return image, clip.preprocess(pixels)


def _compare_clip_scores(source: Source, settings: ExtractSettings, clip: OpenCLIPBackbone) -> str:
    """Compare the annotations' CLIP scores of the first images with this CLIP's."""
    annotated: list[float] = []
    computed: list[float] = []
    images = itertools.chain.from_iterable(map(source.read, source.shards))
    for image in itertools.islice(images, PROBE_FILES):
        if image.clip_scores is None:
            continue
        _, pixels = _load(clip, True, image)
        if isinstance(pixels, Tensor):
            *_, scores = _features(clip, pixels.unsqueeze(0), [image.captions], settings)
            annotated += image.clip_scores
            computed += scores.tolist()
    return choose_clip_scores("auto", annotated, computed, settings.model)


@torch.inference_mode()
def _extract_shard(
    folder: ShardFolder,
    loaded: Iterator[tuple[SourceImage, Tensor | str]],
    shard: Shard,
    settings: ExtractSettings,
    clip: OpenCLIPBackbone,
    batch_size: int,
    tick: Callable[[int], None],
    head: str | None,
) -> None:
    dtype = getattr(torch, settings.dtype)
    device = next(clip.clip.parameters()).device
    images: list[SourceImage] = []
    skipped: dict[str, str] = {}
    parts: list[tuple[Tensor, ...]] = []
    while batch := list(itertools.islice(loaded, batch_size)):
        kept = [(image, pixels) for image, pixels in batch if isinstance(pixels, Tensor)]
        for image, reason in batch:
            if isinstance(reason, str):
                skipped[image.name] = reason
                logger.warning("left out %s: %s", printable(image.name), reason)
        if kept:
            images += [image for image, _ in kept]
            pixels = torch.stack([pixels for _, pixels in kept]).to(device)
            features = _features(clip, pixels, [image.captions for image, _ in kept], settings)
            if settings.clip_score_source == "annotation":
                features[-1].copy_(_annotated([image for image, _ in kept], features[-1]))
            parts.append(features)
        tick(len(batch))
    if not images and shard.is_representative():
        name, reason = next(iter(skipped.items()))
        raise UserError(f"not one image of {shard.name} can be read; {name}: {reason}")
    if not images:
        nothing = torch.empty(0, clip.clip_dim)
        num_patches = clip.num_patches if settings.patches else 0
        parts.append(
            (torch.empty(0, num_patches, clip.patch_dim), nothing, nothing, torch.empty(0))
        )
    patch_feats, global_feats, caption_feats, clip_scores = map(torch.cat, zip(*parts, strict=True))
    write_feature_shard(
        folder,
        shard,
        [image.as_record() for image in images],
        patch_feats.to(dtype),
        global_feats.to(dtype),
        caption_feats.to(dtype),
        clip_scores,
        head,
        skipped=skipped,
    )


def _annotated(images: list[SourceImage], computed: Tensor) -> Tensor:
    """Return the annotations' CLIP scores (m,), the computed ones where there are none."""
    own = computed.split([len(image.captions) for image in images])
    return torch.cat(
        [
            scores if image.clip_scores is None else torch.tensor(image.clip_scores)
            for image, scores in zip(images, own, strict=True)
        ]
    )


@torch.inference_mode()
def _features(
    clip: OpenCLIPBackbone, pixels: Tensor, captions: list[list[str]], settings: ExtractSettings
) -> tuple[Tensor, ...]:
    """Features of a batch, on the CPU; patches in the store's dtype, as they are many."""
    patch_feats, global_feats = clip(pixels)
    if not settings.patches:
        patch_feats = patch_feats[:, :0]
    texts = [settings.caption_template.replace("{}", text) for own in captions for text in own]
    caption_feats = encode_texts(clip, texts)
    owners = torch.tensor([len(own) for own in captions], device=pixels.device)
    cosine = (caption_feats * global_feats.repeat_interleave(owners, dim=0)).sum(-1)
    return (
        patch_feats.to(getattr(torch, settings.dtype)).cpu(),
        global_feats.cpu(),
        caption_feats.cpu(),
        CLIP_SCORE_SCALE * cosine.cpu(),
    )


@torch.inference_mode()
def encode_texts(clip: OpenCLIPBackbone, texts: list[str]) -> Tensor:
    """CLIP's features of any number of texts, a batch at a time.

    Args:
        clip: The model.
        texts: n texts; longer ones than CLIP's context are cut.

    Returns:
        (n, Dc) float32, each row of length 1.
    """
    encoded = [
        clip.encode_text(texts[start : start + _TEXT_BATCH])
        for start in range(0, len(texts), _TEXT_BATCH)
    ]
    return torch.cat(encoded) if encoded else torch.empty(0, clip.clip_dim)


def _ahead(
    pool: ThreadPoolExecutor, function: Callable, items: Iterable, depth: int
) -> Iterator[Any]:
    """Like ``pool.map``, but never more than ``depth`` items ahead of the consumer."""
    waiting: deque = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
