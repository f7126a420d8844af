"""Estimate of time and disk space for a data set, measured on its first captions."""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.captions.record import Caption
from pcm_plugin.formats.feature_shard import FORMAT as STORE_FORMAT
from pcm_plugin.formats.image_shards import FORMAT as IMAGE_FORMAT
from pcm_plugin.formats.pair_selection import FORMAT as PAIRS_FORMAT
from pcm_plugin.formats.shards import ShardFolder
from pcm_plugin.formats.vocabulary_coverage import VocabularyCoverage
from pcm_plugin.synthesis.extract.encode_captions import caption_store_record
from pcm_plugin.synthesis.extract.sources import Source
from pcm_plugin.synthesis.generate.prompts import Prompts
from pcm_plugin.synthesis.generate.settings import GenerateSettings
from pcm_plugin.synthesis.pipeline.corpus import find_words
from pcm_plugin.synthesis.pipeline.dataset import (
    check_folder,
    check_rephrasings,
    has_held_out,
)
from pcm_plugin.synthesis.pipeline.photos import (
    ASSIGN_PHOTO_STORE,
    PHOTO_STORE,
    check_photos,
    open_photos,
)
from pcm_plugin.synthesis.pipeline.recipes import Recipe
from pcm_plugin.synthesis.pipeline.timing import (
    read_first_images,
    time_captions,
    time_extraction,
    time_generation,
    time_matching,
    time_sentences,
)
from pcm_plugin.synthesis.pipeline.validation import choose_held_out
from pcm_plugin.synthesis.ranks import deterministic_cpu_threads

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
            f"{self.name:14} {self.total:>11,} {self.unit}, {self.done:,} done; "
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
        lines = [
            f"{self.words:,} {self.coverage.unit}, {self.concepts:,} concepts",
            str(self.coverage),
        ]
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
    """Time up to two batches of each stage, and extrapolate.

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
    check_folder(recipe, out)
    check_rephrasings(captions, recipe)
    photos = open_photos(recipe)
    check_photos(recipe, out, photos)
    num_photos = 0 if photos is None else photos.num_images
    corpus = _FirstCaptions(captions, min(count, limit or count))
    vocabulary, coverage, words = find_words(corpus, recipe)
    totals = {
        split: sum(shard.count for shard in source.shards)
        for split, source in (real_splits or {}).items()
    }
    with deterministic_cpu_threads(device):
        if recipe.generate is None:
            stages = _text_stages(corpus, recipe, out, device, real_splits or {}, totals)
        else:
            is_split = has_held_out(recipe, out, real_splits or {})
            stages = _image_stages(
                corpus, recipe, recipe.generate, out, device, totals, is_split, num_photos
            )
    return Estimate(len(vocabulary) - 1, len(words), coverage, stages, _free_bytes(out))


def _text_stages(
    corpus: "_FirstCaptions",
    recipe: Recipe,
    out: Path,
    device: str,
    real_splits: dict[str, Source],
    totals: dict[str, int],
) -> list[Stage]:
    """Return the cost of the stages of a text recipe."""
    settings = recipe.extract
    record = caption_store_record(settings)
    ShardFolder.check_settings(out / "train_store", STORE_FORMAT, record)
    seconds, bytes_each = time_captions(settings, device, corpus)
    done = min(corpus.count, _done(out / "train_store", STORE_FORMAT))
    stages = [Stage("encode train", "captions", corpus.count, done, seconds, bytes_each)]
    for split, source in real_splits.items():
        size = recipe.extract_batch
        images = read_first_images(source, size)
        texts = [caption.text for caption in itertools.islice(corpus, size)]
        seconds, bytes_each, _ = time_extraction(settings, size, device, images, texts)
        stages.append(_extraction(split, out, totals[split], seconds, bytes_each))
    return stages


def _image_stages(
    corpus: "_FirstCaptions",
    recipe: Recipe,
    settings: GenerateSettings,
    out: Path,
    device: str,
    totals: dict[str, int],
    is_split: bool,
    photos: int,
) -> list[Stage]:
    """Return the cost of the stages of a recipe that generates images.

    ``is_split`` is whether captions are held out for validation, which are not refined, and
    ``photos`` the number of photos without captions.
    """
    ShardFolder.check_settings(out / "synthetic", IMAGE_FORMAT, settings.as_record())
    generation_seconds, image_bytes, images, texts = time_generation(
        corpus, recipe, settings, device
    )
    size = recipe.extract_batch
    extraction_seconds, feature_bytes, clip_dim = time_extraction(
        recipe.extract, size, device, images, texts
    )
    prompts = Prompts(corpus.captions, corpus.count, settings.shard_size, settings.unique)
    pairs = sum(map(len, prompts)) * settings.images_per_caption
    done = min(pairs, _done(out / "synthetic", IMAGE_FORMAT))
    stages = [Stage("generate", "images", pairs, done, generation_seconds, image_bytes)]
    for split, total in {"train": pairs, **totals}.items():
        stages.append(_extraction(split, out, total, extraction_seconds, feature_bytes))
    if recipe.assign is not None:
        size = recipe.assign_batch
        seconds, assign_bytes, clip_dim = time_extraction(
            recipe.assign, size, device, images, texts
        )
        done = min(pairs, _done(out / "assign_store", STORE_FORMAT))
        stages.append(Stage("assign", "images", pairs, done, seconds, assign_bytes))
    if recipe.photos is not None:
        done = min(photos, _done(out / PHOTO_STORE, STORE_FORMAT))
        cost = (extraction_seconds, feature_bytes)
        stages.append(Stage("extract photos", "images", photos, done, *cost))
    if recipe.photos is not None and recipe.assign is not None:
        done = min(photos, _done(out / ASSIGN_PHOTO_STORE, STORE_FORMAT))
        stages.append(Stage("assign photos", "images", photos, done, seconds, assign_bytes))
    if recipe.refine is None:
        return stages
    rows, captions = _refined(corpus, recipe, settings, pairs, is_split)
    if recipe.photos is not None:
        rows = photos + (rows if recipe.photos.images == "all" else 0)
    seconds, sentence_bytes = time_sentences(recipe, device, texts)
    if seconds:
        done = min(captions, _done(out / "pairs", PAIRS_FORMAT, "sentences"))
        stages.append(Stage("sentences", "captions", captions, done, seconds, sentence_bytes))
    if recipe.refine.method == "sync":
        # Two passes: captions of images, and images of captions.
        total = rows + captions
        done = _done(out / "pairs", PAIRS_FORMAT) - _done(out / "pairs", PAIRS_FORMAT, "sentences")
        seconds, done = time_matching(rows, clip_dim, device), min(total, done)
        stages.append(Stage("refine", "rows", total, done, seconds, _ROW_BYTES))
    return stages


def _refined(
    corpus: "_FirstCaptions",
    recipe: Recipe,
    settings: GenerateSettings,
    images: int,
    is_split: bool,
) -> tuple[int, int]:
    """Return how many of ``images`` images, and how many captions of images, are refined."""
    withheld: list[str] = []
    if is_split:
        captions = list(corpus)
        withheld = [captions[i].text for held in choose_held_out(captions, recipe) for i in held]
    # With `unique`, captions of equal text share their images.
    images_of = len(set(withheld)) if settings.unique else len(withheld)
    each = settings.images_per_caption
    return images - each * images_of, each * (corpus.count - len(withheld))


def _extraction(split: str, out: Path, total: int, seconds: float, bytes_each: float) -> Stage:
    done = min(total, _done(out / f"{split}_store", STORE_FORMAT))
    return Stage(f"extract {split}", "images", total, done, seconds, bytes_each)


class _FirstCaptions:
    """First captions of a file, which can be iterated over repeatedly."""

    def __init__(self, captions: CaptionFile, count: int) -> None:
        self.captions, self.count = captions, count

    def __iter__(self) -> Iterator[Caption]:
        return itertools.islice(self.captions, self.count)


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
