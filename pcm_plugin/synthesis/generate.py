"""Captions to synthetic images, through any text-to-image pipeline of diffusers."""

import hashlib
import io
import itertools
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from pcm_plugin.datasets.durable import fingerprint, name_by_content, replacing
from pcm_plugin.datasets.shards import ShardFolder
from pcm_plugin.synthesis.captions import Caption, read_captions
from pcm_plugin.synthesis.ranks import Rank

FORMAT = "pcm-images"

_ENCODERS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG"},
    "jpg": {"format": "JPEG", "quality": 95},
    "webp": {"format": "WEBP", "quality": 90},
}


@dataclass(frozen=True)
class GenerateSettings:
    """What the images depend on, beside their captions.

    Attributes:
        pipeline: A diffusers pipeline: name on the hub, or local folder.
        steps: Denoising steps; None for the pipeline's own default, as below.
        guidance: Scale of classifier-free guidance.
        size: Height and width in pixels.
        scheduler: Name of a diffusers scheduler class, e.g. ``'DPMSolverMultistepScheduler'``.
        dtype: ``'float32'``, ``'float16'`` or ``'bfloat16'``. Defaults to ``'float32'``.
        seed: Seed of the run. Defaults to 0.
        shard_size: Images a shard. Defaults to 1,000.
        format: ``'png'``, ``'jpg'`` (quality 95) or ``'webp'`` (quality 90). Defaults to
            ``'jpg'``.

    Raises:
        FileNotFoundError: If the pipeline's folder does not exist or holds none.
        ValueError: If another setting is out of range.
    """

    pipeline: str
    steps: int | None = None
    guidance: float | None = None
    size: int | None = None
    scheduler: str | None = None
    dtype: str = "float32"
    seed: int = 0
    shard_size: int = 1000
    format: str = "jpg"

    def __post_init__(self) -> None:
        if self.format not in _ENCODERS:
            raise ValueError(f"format={self.format!r}: known are {list(_ENCODERS)}")
        if self.dtype not in ("float32", "float16", "bfloat16"):
            raise ValueError(f"dtype={self.dtype!r}: give float32, float16 or bfloat16")
        local = Path(self.pipeline)
        hub_name = len(local.parts) <= 2 and not self.pipeline.startswith((".", "/", "~"))
        if not local.is_dir() and not hub_name:
            raise FileNotFoundError(
                f"no folder {local}: give a local pipeline's folder, or a hub name as OWNER/NAME"
            )
        if local.is_dir() and not (local / "model_index.json").is_file():
            raise FileNotFoundError(
                f"{local} holds no diffusers pipeline: no model_index.json in it"
            )
        for name in ("steps", "size", "shard_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: give at least 1")

    def as_record(self) -> dict[str, Any]:
        """The settings as JSON; a local pipeline is known by its content, not by its place."""
        record = dict(self.__dict__)
        if Path(self.pipeline).is_dir():
            record["pipeline"] = name_by_content(Path(self.pipeline))
        return record


def generate(
    captions: str | os.PathLike,
    settings: GenerateSettings,
    out: str | os.PathLike,
    batch_size: int = 8,
    device: str | None = None,
    limit: int | None = None,
    rank: Rank | None = None,
) -> ShardFolder:
    """Make an image of each caption.

    The folder gets WebDataset shards: ``shard-00000.tar`` with, for each caption, an image and a
    ``.json`` of the same name with ``caption_id``, ``caption``, ``image_id`` and ``seed``; and a
    ``manifest.json``. A run over a folder that has shards already makes those that are missing.
    The seed of an image depends on the run's seed and its caption's id alone, and no shard
    is split between ranks, so any number of ranks and restarts makes the same images (at the
    same batch size, on the same hardware).

    Args:
        captions: A file that :func:`~pcm_plugin.synthesis.captions.read_captions` reads.
        settings: What the images depend on.
        out: The folder.
        batch_size: Images made at a time. Defaults to 8.
        device: Where to work. Defaults to a GPU if there is one.
        limit: Take only the first captions.
        rank: Which part of the shards to make. Defaults to what torchrun says.

    Returns:
        The folder, with this rank's shards finished.

    Raises:
        FileNotFoundError: If captions or a local pipeline are missing.
        ValueError: If there are no captions, or the folder was made with other settings or
            captions; the difference is named. If a number is out of range.
    """
    for name, value in (("batch_size", batch_size), ("limit", limit)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: give at least 1")
    rank = rank or Rank.from_environment()
    count = sum(1 for _ in _first(captions, limit))
    if not count:
        raise ValueError(f"no captions in {captions}")
    expected = -(-count // settings.shard_size)
    folder = ShardFolder.resume(out, FORMAT, settings.as_record(), expected)
    todo = _missing(folder, _chunks(captions, limit, settings.shard_size))
    mine = {index: size for index, size in todo.items() if rank.owns(index)}
    if not mine:
        return folder
    pipeline = load_pipeline(settings, device or rank.device())
    with tqdm(total=sum(mine.values()), unit="img", desc=f"generate{rank.label()}") as progress:
        for index, chunk in enumerate(_chunks(captions, limit, settings.shard_size)):
            if index not in mine:
                continue
            name = _name(index)
            with (
                replacing(folder.path / f"{name}.tar") as file,
                tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
            ):
                for start in range(0, len(chunk), batch_size):
                    batch = chunk[start : start + batch_size]
                    images = draw(pipeline, batch, settings)
                    first = index * settings.shard_size + start
                    for position, (caption, image) in enumerate(
                        zip(batch, images, strict=True), start=first
                    ):
                        _append(tar, f"{position:08d}", caption, image, settings)
                    progress.update(len(batch))
            folder.add(name, [f"{name}.tar"], len(chunk), captions=_digest(chunk))
    return folder


def load_pipeline(settings: GenerateSettings, device: str) -> Any:
    """Load the pipeline from safetensors files, with the scheduler of the settings.

    Raises:
        ValueError: If diffusers knows no such scheduler.
    """
    import diffusers

    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        settings.pipeline, torch_dtype=getattr(torch, settings.dtype), use_safetensors=True
    )
    if settings.scheduler is not None:
        scheduler = getattr(diffusers, settings.scheduler, None)
        if not (isinstance(scheduler, type) and issubclass(scheduler, diffusers.SchedulerMixin)):
            known = sorted(kind.__name__ for kind in pipeline.scheduler.compatibles)
            raise ValueError(f"scheduler={settings.scheduler!r}: this pipeline takes {known}")
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def draw(pipeline: Any, captions: list[Caption], settings: GenerateSettings) -> list[Image.Image]:
    """Make the images of one batch of captions; the prompt is the caption."""
    arguments = {
        "num_inference_steps": settings.steps,
        "guidance_scale": settings.guidance,
        "height": settings.size,
        "width": settings.size,
    }
    given = {name: value for name, value in arguments.items() if value is not None}
    generators = [
        torch.Generator("cpu").manual_seed(image_seed(settings.seed, caption.id))
        for caption in captions
    ]
    prompts = [caption.text for caption in captions]
    return pipeline(prompt=prompts, generator=generators, **given).images


def image_seed(seed: int, caption_id: str) -> int:
    """Seed of a caption's image: 63 bits of the SHA-256 of the run's seed and the id."""
    digest = hashlib.sha256(f"{seed}:{caption_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _first(path: str | os.PathLike, limit: int | None) -> Iterator[Caption]:
    return itertools.islice(read_captions(path), limit)


def _chunks(path: str | os.PathLike, limit: int | None, size: int) -> Iterator[list[Caption]]:
    captions = _first(path, limit)
    while chunk := list(itertools.islice(captions, size)):
        yield chunk


def _name(index: int) -> str:
    return f"shard-{index:05d}"


def _digest(chunk: list[Caption]) -> str:
    return fingerprint([list(caption) for caption in chunk])


def _missing(folder: ShardFolder, chunks: Iterator[list[Caption]]) -> dict[int, int]:
    """Index and size of each shard to make; a last shard that has grown is made again."""
    todo = {}
    for index, chunk in enumerate(chunks):
        record = folder.shards.get(_name(index))
        if record is not None and record["captions"] == _digest(chunk):
            continue
        if record is not None and record["captions"] != _digest(chunk[: record["count"]]):
            raise ValueError(
                f"{folder.path} was made of other captions ({_name(index)} has "
                f"{record['count']}, now {len(chunk)} that are not the same): "
                "give the old ones, or another folder"
            )
        todo[index] = len(chunk)
    return todo


def _append(
    tar: tarfile.TarFile, key: str, caption: Caption, image: Image.Image, settings: GenerateSettings
) -> None:
    encoded = io.BytesIO()
    image.save(encoded, **_ENCODERS[settings.format])
    facts = {
        "caption_id": caption.id,
        "caption": caption.text,
        "image_id": caption.image_id,
        "seed": image_seed(settings.seed, caption.id),
    }
    text = json.dumps(facts, ensure_ascii=False, sort_keys=True).encode()
    for name, data in ((f"{key}.{settings.format}", encoded.getvalue()), (f"{key}.json", text)):
        # TarInfo's defaults (owner 0, time 0) make equal images equal archives.
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
