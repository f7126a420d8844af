"""Image generation: captions to shards of synthetic images."""

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
from pcm_plugin.formats.rephrasings import Rephrasings
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
    """Generate images of each caption.

    The folder gets the shards of :mod:`pcm_plugin.formats.image_shards`. The ``.json`` of an image
    contains ``id``, ``caption_id``, ``caption``, ``image_id``, ``seed`` and, if the first attempt
    was rejected, ``problems``. An image that the safety checker flags, or that is black or not
    finite, is generated once more with another seed. If that is rejected too, the image is skipped
    and listed under ``skipped`` in the record of its shard.

    With ``settings.rephrasings``, images are also generated from other texts of the captions, which
    their ``.json`` contains as ``prompt``.

    With ``settings.unique``, one image is generated for all captions of equal text. It has the id
    and the seed of the first of them. ``repeats.json`` lists the others, which are paired with the
    same image when features are extracted.

    If the folder has shards already, only the missing ones are made. The seed of an image depends
    only on the seed of the run and the id of the caption, and a shard is not split between ranks.
    So the images do not depend on the number of ranks and restarts, for the same batch size and
    hardware; on the CPU, each process uses one thread for this. All ranks return when the folder is
    complete.

    Args:
        captions: The captions, or a caption file.
        settings: Settings of the images.
        out: Folder to write.
        batch_size: Images per batch. Defaults to 8.
        device: Device of the pipeline. Defaults to a GPU if there is one.
        limit: Use only the first ``limit`` captions. Defaults to None, all.
        rank: Rank of this process. Defaults to that of torchrun or srun.
        offload: See :class:`~pcm_plugin.synthesis.generate.text2image.ImageGenerator`.

    Returns:
        The finished folder.

    Raises:
        MissingFileError: If captions or a local pipeline are missing.
        UserError: If there are no captions; rephrased captions are invalid, or do not contain one
            of the captions; the folder was made with other settings or captions; a
            number is out of range; or no image of the first shard, or of a large one, is usable.
    """
    for name, value in (("batch_size", batch_size), ("limit", limit)):
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    rank = rank or Rank.from_environment()
    device = device or rank.device()
    record = settings.as_record()
    # Before captions are compared: with another shard size, the captions of a shard differ too.
    ShardFolder.check_settings(out, FORMAT, record)
    chunks = Prompts(CaptionFile.of(captions), limit, settings.shard_size, settings.unique)
    several, rephrasings = settings.images_per_caption, settings.load_rephrasings()
    plan = []
    for index, chunk in enumerate(chunks):
        _prompts(chunk, rephrasings)  # reports missing captions before the first image
        plan.append(Shard(shard_name(index), len(chunk) * several, _digest(chunk)))
    if not plan:
        raise UserError(f"there are no captions in {chunks.captions.path}")
    folder = ShardFolder.open_for_write(out, FORMAT, record, plan)
    if settings.unique:
        write_repeats(folder.path, chunks.repeats, settings.shard_size)
    generator: ImageGenerator | None = None
    with deterministic_cpu_threads(device):
        for index, tick in claim_shards(folder, plan, rank, "generate"):
            # Loaded only by a process that has a shard to make.
            generator = generator or ImageGenerator(settings, device, offload)
            chunk = chunks[index]
            if _digest(chunk) != plan[index].digest:
                raise UserError(
                    f"{chunks.captions.path} was changed while its images were generated: restore "
                    "it, or write to another folder"
                )
            prompts = _prompts(chunk, rephrasings)
            _make_shard(folder, plan[index], index, chunk, prompts, generator, batch_size, tick)
    return folder


def _prompts(chunk: list[Caption], rephrasings: Rephrasings | None) -> list[tuple[str, ...]]:
    """Return the texts from which the images of each caption are generated."""
    if rephrasings is None:
        return [(caption.text,) for caption in chunk]
    return [rephrasings.prompts(caption) for caption in chunk]


def _make_shard(
    folder: ShardFolder,
    shard: Shard,
    index: int,
    chunk: list[Caption],
    prompts: list[tuple[str, ...]],
    generator: ImageGenerator,
    batch_size: int,
    tick: Callable[[int], None],
) -> None:
    settings = generator.settings
    several = settings.images_per_caption > 1
    requests = [
        (
            caption,
            GenerationRequest(caption.id, texts[number % len(texts)], number),
            image_key(position, number if several else None),
        )
        for position, (caption, texts) in enumerate(
            zip(chunk, prompts, strict=True), start=index * settings.shard_size
        )
        for number in range(settings.images_per_caption)
    ]
    skipped: dict[str, list[str]] = {}
    retried = 0
    with write_image_shard(folder.path, shard.name) as writer:
        for start in range(0, len(requests), batch_size):
            batch = requests[start : start + batch_size]
            results = generator.generate([request for _, request, _ in batch])
            for (caption, request, key), result in zip(batch, results, strict=True):
                retried += bool(result.problems)
                if result.image is None:
                    skipped[key] = result.problems
                else:
                    _append(writer, key, caption, request.text, result.image, result, settings)
            tick(len(batch))
        if len(skipped) == len(requests) and shard.is_representative():
            key, problems = next(iter(skipped.items()))
            raise UserError(
                f"no image of {shard.name} is usable; {key}: {', '.join(problems)}"
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
    """Return the encoded image, in the format of the settings."""
    encoded = io.BytesIO()
    kind = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[settings.format]
    quality = {} if settings.format == "png" else {"quality": settings.quality}
    image.save(encoded, kind, **quality)
    return encoded.getvalue()


def _append(
    writer: ImageShardWriter,
    key: str,
    caption: Caption,
    prompt: str,
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
    if prompt != caption.text:
        facts["prompt"] = prompt
    if result.problems:
        facts["problems"] = result.problems
    writer.append(key, settings.format, encode(image, settings), facts)
