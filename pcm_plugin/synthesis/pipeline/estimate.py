"""Estimate of time and disk space for a data set, measured on its first captions."""

import itertools
from pathlib import Path

from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.feature_shard import FORMAT as STORE_FORMAT
from pcm_plugin.formats.image_shards import FORMAT as IMAGE_FORMAT
from pcm_plugin.formats.shards import ShardFolder
from pcm_plugin.synthesis.extract.encode_captions import caption_store_record
from pcm_plugin.synthesis.extract.sources import Source
from pcm_plugin.synthesis.generate.prompts import Prompts
from pcm_plugin.synthesis.generate.settings import GenerateSettings
from pcm_plugin.synthesis.pipeline.corpus import find_words
from pcm_plugin.synthesis.pipeline.cost import (
    Estimate,
    FirstCaptions,
    Stage,
    count_done,
    extraction_cost,
    free_bytes,
    refinement_cost,
)
from pcm_plugin.synthesis.pipeline.dataset import check_rephrasings, has_held_out
from pcm_plugin.synthesis.pipeline.dataset_checks import check_folder
from pcm_plugin.synthesis.pipeline.photo_estimate import photo_stages
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
)
from pcm_plugin.synthesis.pipeline.validation import choose_held_out
from pcm_plugin.synthesis.ranks import deterministic_cpu_threads


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
    corpus = FirstCaptions(captions, min(count, limit or count))
    vocabulary, coverage, words = find_words(corpus, recipe)
    totals = {
        split: sum(shard.count for shard in source.shards)
        for split, source in (real_splits or {}).items()
    }
    is_split = has_held_out(recipe, out, real_splits or {})
    with deterministic_cpu_threads(device):
        if recipe.generate is None:
            stages = _text_stages(corpus, recipe, out, device, real_splits or {}, totals)
        elif recipe.photos_alone and photos is not None:
            stages = photo_stages(corpus, recipe, out, device, photos, totals, is_split)
        else:
            stages = _image_stages(
                corpus, recipe, recipe.generate, out, device, totals, is_split, num_photos
            )
    return Estimate(len(vocabulary) - 1, len(words), coverage, stages, free_bytes(out))


def _text_stages(
    corpus: FirstCaptions,
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
    done = min(corpus.count, count_done(out / "train_store", STORE_FORMAT))
    stages = [Stage("encode train", "captions", corpus.count, done, seconds, bytes_each)]
    for split, source in real_splits.items():
        size = recipe.extract_batch
        images = read_first_images(source, size)
        texts = [caption.text for caption in itertools.islice(corpus, size)]
        seconds, bytes_each, _ = time_extraction(settings, size, device, images, texts)
        stages.append(extraction_cost(split, out, totals[split], seconds, bytes_each))
    return stages


def _image_stages(
    corpus: FirstCaptions,
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
    done = min(pairs, count_done(out / "synthetic", IMAGE_FORMAT))
    stages = [Stage("generate", "images", pairs, done, generation_seconds, image_bytes)]
    for split, total in {"train": pairs, **totals}.items():
        stages.append(extraction_cost(split, out, total, extraction_seconds, feature_bytes))
    if recipe.assign is not None:
        size = recipe.assign_batch
        seconds, assign_bytes, clip_dim = time_extraction(
            recipe.assign, size, device, images, texts
        )
        done = min(pairs, count_done(out / "assign_store", STORE_FORMAT))
        stages.append(Stage("assign", "images", pairs, done, seconds, assign_bytes))
    if recipe.photos is not None:
        done = min(photos, count_done(out / PHOTO_STORE, STORE_FORMAT))
        cost = (extraction_seconds, feature_bytes)
        stages.append(Stage("extract photos", "images", photos, done, *cost))
    if recipe.photos is not None and recipe.assign is not None:
        done = min(photos, count_done(out / ASSIGN_PHOTO_STORE, STORE_FORMAT))
        stages.append(Stage("assign photos", "images", photos, done, seconds, assign_bytes))
    if recipe.refine is None:
        return stages
    rows, captions = _refined(corpus, recipe, settings, pairs, is_split)
    if recipe.photos is not None:
        rows += photos
    return stages + refinement_cost(recipe, out, device, rows, captions, clip_dim, texts)


def _refined(
    corpus: FirstCaptions,
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
