"""Features of captions alone: a caption file to a feature store without images."""

import os

import torch

from pcm_plugin.errors import UserError
from pcm_plugin.formats.atomic_io import fingerprint
from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.captions.record import Caption
from pcm_plugin.formats.feature_shard import FORMAT, write_caption_shard
from pcm_plugin.formats.shards import Shard, ShardFolder, shard_name
from pcm_plugin.models.backbones.open_clip_backbone import OpenCLIPBackbone
from pcm_plugin.synthesis.extract.clip_features import encode_texts
from pcm_plugin.synthesis.extract.settings import ExtractSettings
from pcm_plugin.synthesis.generate.prompts import Prompts
from pcm_plugin.synthesis.ranks import Rank, deterministic_cpu_threads
from pcm_plugin.synthesis.sharing import claim_shards

SHARD_SIZE = 1000
"""Captions per shard."""

TEXT_BATCH = 64
"""Captions per batch. On a CPU, batches of 256 exceed the cache and take 1.5 times as long."""


def encode_captions(
    captions: CaptionFile | str | os.PathLike,
    settings: ExtractSettings,
    out: str | os.PathLike,
    device: str | None = None,
    limit: int | None = None,
    rank: Rank | None = None,
) -> ShardFolder:
    """Compute CLIP's text embeddings of captions.

    If the store has shards already, only the missing ones are made. Several ranks share them and
    return when the store is complete. On the CPU each process uses one thread, so that the features
    do not depend on the number of ranks.

    Args:
        captions: The captions, or a caption file.
        settings: Settings of the features. Those of patches have no effect.
        out: Folder of the store, see :mod:`pcm_plugin.formats.feature_store`.
        device: Device of the model. Defaults to a GPU if there is one.
        limit: Use only the first ``limit`` captions. Defaults to None, all.
        rank: Rank of this process. Defaults to that of torchrun or srun.

    Returns:
        The finished store.

    Raises:
        MissingFileError: If the captions or the folder of the model are missing.
        UserError: If there are no captions, ``limit`` is below 1, or the store was made with other
            settings or from other captions, or the file is changed meanwhile.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit must be at least 1, got {limit}")
    rank = rank or Rank.from_environment()
    device = device or rank.device()
    record = caption_store_record(settings)
    ShardFolder.check_settings(out, FORMAT, record)
    chunks = Prompts(CaptionFile.of(captions), limit, SHARD_SIZE)
    plan = [
        Shard(shard_name(index), len(chunk), _digest(chunk)) for index, chunk in enumerate(chunks)
    ]
    if not plan:
        raise UserError(f"there are no captions in {chunks.captions.path}")
    folder = ShardFolder.open_for_write(out, FORMAT, record, plan)
    clip: OpenCLIPBackbone | None = None
    with deterministic_cpu_threads(device):
        for index, tick in claim_shards(folder, plan, rank, "encode", "caption"):
            # Loaded only by a process that has a shard to make.
            clip = clip or settings.load_clip().to(device)
            chunk = chunks[index]
            if _digest(chunk) != plan[index].digest:
                raise UserError(
                    f"{chunks.captions.path} was changed while its captions were encoded: restore "
                    "it, or write to another folder"
                )
            feats = encode_by_length(clip, [caption.text for caption in chunk], settings)
            tick(len(chunk))
            write_caption_shard(folder, plan[index], chunk, feats)
    return folder


def caption_store_record(settings: ExtractSettings) -> dict[str, object]:
    """Return the settings of a store of captions alone as JSON."""
    record = settings.as_record()
    used = {key: record[key] for key in ("model", "pretrained", "dtype", "caption_template")}
    return {**used, "images": False, "shard_size": SHARD_SIZE}


def encode_by_length(
    clip: OpenCLIPBackbone, texts: list[str], settings: ExtractSettings
) -> torch.Tensor:
    """Encode captions, shorter ones first, since CLIP pads each batch to its longest text.

    Args:
        clip: The model.
        texts: n captions.
        settings: ``caption_template`` and ``dtype`` of the features.

    Returns:
        (n, Dc) on the CPU in the dtype of the settings, in the order of ``texts``.
    """
    full = [settings.caption_template.replace("{}", text) for text in texts]
    order = sorted(range(len(full)), key=lambda i: len(full[i]))
    encoded = encode_texts(clip, [full[i] for i in order], TEXT_BATCH).cpu()  # (n, Dc)
    feats = torch.empty_like(encoded)
    feats[order] = encoded
    return feats.to(getattr(torch, settings.dtype))


def _digest(chunk: list[Caption]) -> str:
    return fingerprint([[caption.id, caption.text] for caption in chunk])
