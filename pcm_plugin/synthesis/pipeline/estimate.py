"""Estimate of time and disk space for a data set, measured on its first captions."""

import itertools
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from pcm_plugin.errors import UserError
from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.captions.record import Caption
from pcm_plugin.formats.feature_shard import FORMAT as STORE_FORMAT
from pcm_plugin.formats.image_shards import FORMAT as IMAGE_FORMAT
from pcm_plugin.formats.pair_selection import FORMAT as PAIRS_FORMAT
from pcm_plugin.formats.shards import ShardFolder
from pcm_plugin.formats.vocabulary_coverage import VocabularyCoverage
from pcm_plugin.models.functional.retrieval import chunked_topk
from pcm_plugin.synthesis.extract.settings import ExtractSettings
from pcm_plugin.synthesis.extract.sources import Source
from pcm_plugin.synthesis.generate.generate_images import encode
from pcm_plugin.synthesis.generate.prompts import Prompts
from pcm_plugin.synthesis.generate.text2image import GenerationRequest, ImageGenerator
from pcm_plugin.synthesis.pipeline.corpus import find_words
from pcm_plugin.synthesis.pipeline.recipes import Recipe
from pcm_plugin.synthesis.ranks import deterministic_cpu_threads
from pcm_plugin.synthesis.refine.sentence_encoder import SentenceEncoder

_WORKERS = 4  # the default of extract_features
_ROW_BYTES = 16  # an index of an image, two scores, and the nearest captions


class Stage(NamedTuple):
    """Cost of a stage.

    Attributes:
        name: Name of the stage, such as ``'generate'``.
        unit: What is counted, such as ``'images'``.
        total: Number of samples.
        done: Number of finished samples.
        seconds_each: Seconds per sample, without loading models.
        bytes_each: Bytes per sample on disk.
    """

    name: str
    unit: str
    total: int
    done: int
    seconds_each: float
    bytes_each: float

    def __str__(self) -> str:
        """Format counts, disk space and remaining time as one line."""
        left = self.total - self.done
        return (
            f"{self.name:13} {self.total:>11,} {self.unit}, {self.done:,} done; "
            f"{_size(self.total * self.bytes_each)} in all; {1 / self.seconds_each:,.2f} a second "
            f"by one process: {_duration(left * self.seconds_each)} left"
        )


class Estimate(NamedTuple):
    """Cost of a data set.

    Attributes:
        words: Size of the vocabulary.
        concepts: Number of concepts.
        coverage: Coverage of the captions by the vocabulary.
        stages: Cost of each stage that takes long.
        free: Free bytes on the disk.
    """

    words: int
    concepts: int
    coverage: VocabularyCoverage
    stages: list[Stage]
    free: int

    def __str__(self) -> str:
        """Format one line per stage, and whether the disk has enough space."""
        left = sum((stage.total - stage.done) * stage.bytes_each for stage in self.stages)
        lines = [f"{self.words:,} words, {self.concepts:,} concepts", str(self.coverage)]
        lines += map(str, self.stages)
        if left > self.free:
            lines.append(f"THE DISK IS TOO SMALL: {_size(left)} needed, {_size(self.free)} free")
        else:
            lines.append(f"disk: {_size(left)} needed, {_size(self.free)} free")
        return "\n".join(lines)


def estimate(
    captions: CaptionFile,
    count: int,
    recipe: Recipe,
    out: Path,
    device: str,
    real_splits: dict[str, Source] | None = None,
    limit: int | None = None,
) -> Estimate:
    """Time up to two batches of generation and extraction, and extrapolate.

    Args:
        captions: The corpus.
        count: Number of captions.
        recipe: The recipe.
        out: Folder of the data set; nothing is written there.
        device: Device of the models.
        real_splits: Real images of ``'val'`` and ``'test'``. Defaults to None.
        limit: Use only the first ``limit`` captions. Defaults to None, all.

    Raises:
        UserError: If the folder was made with other settings, or there are too few words.
    """
    ShardFolder.check_settings(out / "synthetic", IMAGE_FORMAT, recipe.generate.as_record())
    count = min(count, limit or count)
    vocabulary, coverage, words = find_words(_FirstCaptions(captions, count), recipe)
    with deterministic_cpu_threads(device):
        generation_seconds, image_bytes, images, texts = _time_generation(
            captions, count, recipe, device
        )
        size = recipe.extract_batch
        extraction_seconds, feature_bytes, clip_dim = _time_extraction(
            recipe.extract, size, device, images, texts
        )
        prompts = Prompts(captions, count, recipe.generate.shard_size, recipe.generate.unique)
        pairs = sum(map(len, prompts)) * recipe.generate.images_per_caption
        if recipe.assign is not None:
            size = recipe.assign_batch
            assignment_seconds, assign_bytes, clip_dim = _time_extraction(
                recipe.assign, size, device, images, texts
            )
        matching_seconds = (
            _time_matching(pairs, clip_dim, device) if _assigns_pairs(recipe) else 0.0
        )
        sentence_seconds, sentence_bytes = _time_sentences(recipe, device, texts)
    stages = [
        Stage(
            "generate",
            "images",
            pairs,
            min(pairs, _done(out / "synthetic", IMAGE_FORMAT)),
            generation_seconds,
            image_bytes,
        )
    ]
    for split, total in {
        "train": pairs,
        **{
            split: sum(s.count for s in source.shards)
            for split, source in (real_splits or {}).items()
        },
    }.items():
        done = min(total, _done(out / f"{split}_store", STORE_FORMAT))
        name = f"extract {split}"
        stages.append(Stage(name, "images", total, done, extraction_seconds, feature_bytes))
    if recipe.assign is not None:
        done = min(pairs, _done(out / "assign_store", STORE_FORMAT))
        stages.append(Stage("assign", "images", pairs, done, assignment_seconds, assign_bytes))
    if sentence_seconds:
        total = count * recipe.generate.images_per_caption
        done = min(total, _done(out / "pairs", PAIRS_FORMAT, "sentences"))
        stages.append(Stage("sentences", "captions", total, done, sentence_seconds, sentence_bytes))
    if _assigns_pairs(recipe):
        # Two passes: captions of images, and images of captions.
        done = _done(out / "pairs", PAIRS_FORMAT) - _done(out / "pairs", PAIRS_FORMAT, "sentences")
        done = min(2 * pairs, done)
        stages.append(Stage("refine", "rows", 2 * pairs, done, matching_seconds, _ROW_BYTES))
    return Estimate(len(vocabulary) - 1, len(words), coverage, stages, _free_bytes(out))


class _FirstCaptions:
    """First captions of a file, which can be iterated over repeatedly."""

    def __init__(self, captions: CaptionFile, count: int) -> None:
        self._captions, self._count = captions, count

    def __iter__(self) -> Iterator[Caption]:
        return itertools.islice(self._captions, self._count)


def _time_generation(
    captions: CaptionFile, count: int, recipe: Recipe, device: str
) -> tuple[float, float, list[Image.Image], list[str]]:
    """Return seconds and bytes per image, and the generated images with their captions."""
    first = list(itertools.islice(captions, min(count, 2 * recipe.generate_batch)))
    requests = [GenerationRequest(caption.id, caption.text) for caption in first]
    images: list[Image.Image] = []
    sizes: list[int] = []

    def generate(batch: list[GenerationRequest]) -> None:
        new = [result.image for result in generator.generate(batch) if result.image]
        sizes.extend(len(encode(image, recipe.generate)) for image in new)
        images.extend(new)

    generator = ImageGenerator(recipe.generate, device, recipe.offload)
    seconds = _seconds_each(list(_batches(requests, recipe.generate_batch)), generate, device)
    if not images:
        raise UserError("none of the first images is usable: check the settings of the recipe")
    return seconds, sum(sizes) / len(sizes), images, [request.text for request in requests]


def _time_extraction(
    settings: ExtractSettings, size: int, device: str, images: list[Image.Image], texts: list[str]
) -> tuple[float, float, int]:
    """Return seconds and bytes per image, and the width of CLIP."""
    clip = settings.load_clip().to(device)

    @torch.inference_mode()
    def extract(batch: list[int]) -> None:
        with ThreadPoolExecutor(_WORKERS) as pool:
            pixels = list(pool.map(clip.preprocess, (images[i % len(images)] for i in batch)))
        clip(torch.stack(pixels).to(device))
        clip.encode_text([texts[i % len(texts)] for i in batch])

    seconds = _seconds_each([list(range(size)), list(range(size))], extract, device)
    width = 4 if settings.dtype == "float32" else 2
    num_patches = clip.num_patches if settings.patches else 0
    return seconds, width * (num_patches * clip.patch_dim + 2 * clip.clip_dim), clip.clip_dim


def _time_sentences(recipe: Recipe, device: str, texts: list[str]) -> tuple[float, int]:
    """Return seconds and bytes per caption; 0 without a sentence encoder."""
    if recipe.refine is None or recipe.refine.sentence_encoder is None:
        return 0.0, 0
    encoder = SentenceEncoder(recipe.refine.sentence_encoder, recipe.refine.pooling, device)
    batch = [texts[i % len(texts)] for i in range(256)]
    width = encoder.encode(batch[:1]).shape[1]
    return _seconds_each([batch, batch], encoder.encode, device), 4 * width


def _assigns_pairs(recipe: Recipe) -> bool:
    return recipe.refine is not None and recipe.refine.method == "sync"


def _time_matching(count: int, clip_dim: int, device: str) -> float:
    """Return the seconds of a search for the nearest of ``count`` rows."""
    keys = torch.randn(min(count, 8192), clip_dim, device=device)
    queries = torch.randn(1024, clip_dim, device=device)
    batches = [queries, queries]
    seconds = _seconds_each(batches, lambda rows: chunked_topk(rows, [keys], 15), device)
    return seconds * count / len(keys)


def _batches(items: list, size: int) -> Iterator[list]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _seconds_each(batches: Sequence, work: Callable, device: str) -> float:
    """Return the seconds per sample of the last full batch; the first one is the warm-up."""
    seconds = 0.0
    for batch in [b for b in batches if len(b) == len(batches[0])]:
        start = time.perf_counter()
        work(batch)
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - start) / len(batch)
    return seconds


def _done(folder: Path, format: str, start: str = "") -> int:
    """Return the number of samples in finished shards whose names begin with ``start``."""
    if not (folder / "manifest.json").is_file():
        return 0
    shards = ShardFolder(folder, format).shards
    return sum(record["num_source"] for name, record in shards.items() if name.startswith(start))


def _free_bytes(folder: Path) -> int:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


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
