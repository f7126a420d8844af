"""What a data set will cost, measured on its first captions, and what of it is there already."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pcm_plugin.datasets.feature_store import FORMAT as STORE_FORMAT
from pcm_plugin.datasets.shards import ShardFolder
from pcm_plugin.models.backbones.open_clip_backbone import OpenCLIPBackbone
from pcm_plugin.synthesis.captions import CaptionFile
from pcm_plugin.synthesis.generate import FORMAT as IMAGE_FORMAT
from pcm_plugin.synthesis.generate import encode
from pcm_plugin.synthesis.painter import Order, Painter
from pcm_plugin.synthesis.recipes import Recipe


class Stage(NamedTuple):
    """A stage's cost.

    Attributes:
        name: ``'generate'`` or ``'extract'``.
        total: Images in all.
        done: Images that are there.
        seconds_each: Measured on one batch, the second where there is one; models are loaded.
        bytes_each: On disk.
    """

    name: str
    total: int
    done: int
    seconds_each: float
    bytes_each: float

    def __str__(self) -> str:
        """A line with counts, disk and time that is left."""
        left = self.total - self.done
        return (
            f"{self.name:9} {self.total:>11,} images, {self.done:,} done; "
            f"{_size(self.total * self.bytes_each)} in all; {1 / self.seconds_each:,.2f} a second "
            f"by one process: {_duration(left * self.seconds_each)} left"
        )


def estimate(
    captions: CaptionFile, count: int, recipe: Recipe, out: Path, device: str
) -> list[Stage]:
    """Paint and encode up to two batches of the first captions, and reckon from there.

    Args:
        captions: The corpus.
        count: How many captions it has.
        recipe: The settings.
        out: The data set's folder; nothing is written there.
        device: Where to work.

    Returns:
        The stages that take long: generate and extract.
    """
    several = recipe.generate.images_per_caption
    first = list(itertools.islice(captions, min(count, 2 * recipe.generate_batch)))
    orders = [Order(caption.id, caption.text) for caption in first]
    batches = [
        orders[start : start + recipe.generate_batch]
        for start in range(0, len(orders), recipe.generate_batch)
    ]
    images: list[Any] = []

    def paint(batch: list[Order]) -> None:
        images.extend(result.image for result in painter.paint(batch) if result.image)

    painter = Painter(recipe.generate, device)
    painting = _seconds_each(batches, paint)
    if not images:
        raise ValueError("none of the first images is usable: look at the recipe's settings")
    encoded = [len(encode(image, recipe.generate)) for image in images]
    clip = OpenCLIPBackbone(recipe.extract.model, recipe.extract.pretrained, recipe.extract.pool)
    clip = clip.to(device)
    texts = [order.text for order in orders]

    @torch.inference_mode()
    def look(batch: list[int]) -> None:
        pixels = [clip.preprocess(images[i % len(images)]) for i in batch]
        clip(torch.stack(pixels).to(device))
        clip.encode_text([texts[i % len(texts)] for i in batch])

    size = recipe.extract_batch
    looking = _seconds_each([list(range(size)), list(range(size))], look)
    width = 4 if recipe.extract.dtype == "float32" else 2
    features = width * (clip.num_patches * clip.patch_dim + 2 * clip.clip_dim)
    done = [_done(out / "synthetic", IMAGE_FORMAT), _done(out / "train_store", STORE_FORMAT)]
    total = count * several
    return [
        Stage("generate", total, done[0], painting, sum(encoded) / len(encoded)),
        Stage("extract", total, done[1], looking, features),
    ]


def _seconds_each(batches: list[list], work: Callable[[list], None]) -> float:
    """Of the last batch: the first has to warm up."""
    taken = 0.0
    for batch in batches:
        start = time.perf_counter()
        work(batch)
        taken = (time.perf_counter() - start) / len(batch)
    return taken


def _done(folder: Path, format: str) -> int:
    if not (folder / "manifest.json").is_file():
        return 0
    return sum(record["count"] for record in ShardFolder(folder, format).shards.values())


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"
