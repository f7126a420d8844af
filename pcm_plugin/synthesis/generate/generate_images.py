"""Captions to shards of synthetic images."""

import io
import os
from collections.abc import Callable
from typing import Any

from PIL import Image

from pcm_plugin.errors import UserError
from pcm_plugin.formats.atomic_io import fingerprint
from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.captions.record import Caption
from pcm_plugin.formats.image_shards import (
    FORMAT,
    ImageShardWriter,
    archive_name,
    image_key,
    write_image_shard,
    write_repeats,
)
from pcm_plugin.formats.shards import Shard, ShardFolder, shard_name
from pcm_plugin.synthesis.generate.prompts import Prompts
from pcm_plugin.synthesis.generate.settings import GenerateSettings
from pcm_plugin.synthesis.generate.text2image import (
    GenerationRequest,
    GenerationResult,
    ImageGenerator,
)
from pcm_plugin.synthesis.ranks import Rank, deterministic_cpu_threads
from pcm_plugin.synthesis.sharing import claim_shards


def generate_images(
    captions: CaptionFile | str | os.PathLike,
    settings: GenerateSettings,
    out: str | os.PathLike,
    batch_size: int = 8,
    device: str | None = None,
    limit: int | None = None,
    rank: Rank | None = None,
    offload: str | None = None,
) -> ShardFolder:
    """Make images of each caption.

    The folder gets WebDataset shards: ``shard-00000.tar`` with, for each image, its file and a
    ``.json`` of the same name with ``id``, ``caption_id``, ``caption``, ``image_id``, ``seed`` and,
    if a first try failed, ``problems``; and a ``manifest.json``. An image that the safety checker
    flags, or that is black or not finite, is tried once more with another seed; if that fails
    too it is left out and listed under ``skipped`` in its shard's record.

    With ``settings.unique``, one image is generated for all captions of equal text. It has the id
    and the seed of the first of them; ``repeats.json`` lists the others, which ``extract`` pairs
    with the same image.

    A run over a folder that has shards already makes those that are missing. The seed of an
    image depends on the run's seed and its caption's id alone, and no shard is split between
    ranks, so any number of ranks and restarts makes the same images (at the same batch size, on
    the same hardware; on the CPU each process works with one thread for that). All ranks return
    when the folder is complete.

    Args:
        captions: The captions, or a file of them.
        settings: What the images depend on.
        out: The folder.
        batch_size: Images made at a time. Defaults to 8.
        device: Where to work. Defaults to a GPU if there is one.
        limit: Take only the first captions.
        rank: Which of several processes this is. Defaults to what torchrun or srun say.
        offload: See :class:`~pcm_plugin.synthesis.generate.text2image.ImageGenerator`.

    Returns:
        The finished folder.

    Raises:
        MissingFileError: If captions or a local pipeline are missing.
        UserError: If there are no captions, or the folder was made with other settings or
            captions; the difference is named. If a number is out of range, or not one image of
            the first shard, or of a large one, is usable.
    """
    for name, value in (("batch_size", batch_size), ("limit", limit)):
        if value is not None and value < 1:
            raise UserError(f"{name}={value}: give at least 1")
    rank = rank or Rank.from_environment()
    device = device or rank.device()
    made_with = settings.as_record()
    # Settings first: with another shard size the captions of a shard would differ too.
    ShardFolder.check_settings(out, FORMAT, made_with)
    chunks = Prompts(CaptionFile.of(captions), limit, settings.shard_size, settings.unique)
    several = settings.images_per_caption
    plan = [
        Shard(shard_name(index), len(chunk) * several, _digest(chunk))
        for index, chunk in enumerate(chunks)
    ]
    if not plan:
        raise UserError(f"no captions in {chunks.captions.path}")
    folder = ShardFolder.open_for_write(out, FORMAT, made_with, plan)
    if settings.unique:
        write_repeats(folder.path, chunks.repeats, settings.shard_size)
    generator: ImageGenerator | None = None
    with deterministic_cpu_threads(device):
        for index, tick in claim_shards(folder, plan, rank, "generate"):
            # Only who has something to do waits for a model to be loaded.
            generator = generator or ImageGenerator(settings, device, offload)
            chunk = chunks[index]
            if _digest(chunk) != plan[index].digest:
                raise UserError(
                    f"{chunks.captions.path} was changed while images were made of it: bring the "
                    "old one back, or begin another folder"
                )
            _make_shard(folder, plan[index], index, chunk, generator, batch_size, tick)
    return folder


def _make_shard(
    folder: ShardFolder,
    shard: Shard,
    index: int,
    chunk: list[Caption],
    generator: ImageGenerator,
    batch_size: int,
    tick: Callable[[int], None],
) -> None:
    settings = generator.settings
    several = settings.images_per_caption > 1
    requests = [
        (
            caption,
            GenerationRequest(caption.id, caption.text, number),
            image_key(position, number if several else None),
        )
        for position, caption in enumerate(chunk, start=index * settings.shard_size)
        for number in range(settings.images_per_caption)
    ]
    skipped: dict[str, list[str]] = {}
    retried = 0
    with write_image_shard(folder.path, shard.name) as writer:
        for start in range(0, len(requests), batch_size):
            batch = requests[start : start + batch_size]
            results = generator.generate([request for _, request, _ in batch])
            for (caption, _, key), result in zip(batch, results, strict=True):
                retried += bool(result.problems)
                if result.image is None:
                    skipped[key] = result.problems
                else:
                    _append(writer, key, caption, result.image, result, settings)
            tick(len(batch))
        if len(skipped) == len(requests) and shard.is_representative():
            key, problems = next(iter(skipped.items()))
            raise UserError(
                f"not one image of {shard.name} is usable; {key}: {', '.join(problems)}"
                + (" (try dtype float32)" if settings.dtype == "float16" else "")
            )
    folder.commit(
        shard,
        [archive_name(shard.name)],
        len(requests) - len(skipped),
        retried=retried,
        skipped=skipped,
    )


def _digest(chunk: list[Caption]) -> str:
    return fingerprint([[caption.id, caption.image_id, caption.text] for caption in chunk])


def encode(image: Image.Image, settings: GenerateSettings) -> bytes:
    """An image as it is stored."""
    encoded = io.BytesIO()
    kind = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[settings.format]
    quality = {} if settings.format == "png" else {"quality": settings.quality}
    image.save(encoded, kind, **quality)
    return encoded.getvalue()


def _append(
    writer: ImageShardWriter,
    key: str,
    caption: Caption,
    image: Image.Image,
    result: GenerationResult,
    settings: GenerateSettings,
) -> None:
    facts: dict[str, Any] = {
        "id": caption.id + key[8:],
        "caption_id": caption.id,
        "caption": caption.text,
        "image_id": caption.image_id,
        "seed": result.seed,
    }
    if result.problems:
        facts["problems"] = result.problems
    writer.append(key, settings.format, encode(image, settings), facts)
