"""Cost of a data set whose captions are assigned to photos alone, measured on its first samples."""

import itertools
from pathlib import Path

from pcm_plugin.formats.feature_shard import FORMAT as STORE_FORMAT
from pcm_plugin.formats.image_shards import FORMAT as IMAGE_FORMAT
from pcm_plugin.formats.shards import ShardFolder
from pcm_plugin.synthesis.extract.encode_captions import caption_store_record
from pcm_plugin.synthesis.extract.settings import ExtractSettings
from pcm_plugin.synthesis.extract.sources import Source
from pcm_plugin.synthesis.pipeline.cost import (
    FirstCaptions,
    Stage,
    count_done,
    extraction_cost,
    refinement_cost,
)
from pcm_plugin.synthesis.pipeline.photos import ASSIGN_PHOTO_STORE, PHOTO_STORE
from pcm_plugin.synthesis.pipeline.photos_alone import VALIDATION_IMAGES, validation_generation
from pcm_plugin.synthesis.pipeline.recipes import Recipe
from pcm_plugin.synthesis.pipeline.timing import (
    read_first_images,
    time_captions,
    time_extraction,
    time_generation,
)
from pcm_plugin.synthesis.pipeline.validation import VALIDATION_STORE, choose_held_out


def photo_stages(
    corpus: FirstCaptions,
    recipe: Recipe,
    out: Path,
    device: str,
    photos: Source,
    totals: dict[str, int],
    is_split: bool,
) -> list[Stage]:
    """Return the cost of the stages.

    Args:
        corpus: The captions.
        recipe: The recipe, with photos alone.
        out: Folder of the data set.
        device: Device of the models.
        photos: The photos.
        totals: Number of real images of ``'val'`` and ``'test'``, if there are any.
        is_split: Whether captions are held out for validation, of which images are generated.

    Raises:
        UserError: If the folder was made with other settings.
    """
    assert recipe.generate is not None
    settings = validation_generation(recipe.generate)
    ShardFolder.check_settings(out / VALIDATION_IMAGES, IMAGE_FORMAT, settings.as_record())
    held, withheld = 0, 0
    if is_split:
        held_out = choose_held_out([*corpus], recipe)
        held = len(held_out.validation)
        withheld = held + len(held_out.near_duplicates)
    stages = []
    if held:
        seconds, size, _, _ = time_generation(corpus, recipe, settings, device)
        done = min(held, count_done(out / VALIDATION_IMAGES, IMAGE_FORMAT))
        stages.append(Stage("generate val", "images", held, done, seconds, size))
    stages.append(_encoding("encode train", corpus, recipe.extract, out / "train_store", device))
    count = recipe.extract_batch
    images = read_first_images(photos, count)
    texts = [caption.text for caption in itertools.islice(corpus, count)]
    seconds, bytes_each, clip_dim = time_extraction(recipe.extract, count, device, images, texts)
    for split, total in totals.items():
        stages.append(extraction_cost(split, out, total, seconds, bytes_each))
    if held:
        done = min(held, count_done(out / VALIDATION_STORE, STORE_FORMAT))
        stages.append(Stage("extract val", "images", held, done, seconds, bytes_each))
    total = photos.num_images
    done = min(total, count_done(out / PHOTO_STORE, STORE_FORMAT))
    stages.append(Stage("extract photos", "images", total, done, seconds, bytes_each))
    if recipe.assign is not None:
        store = out / "assign_store"
        stages.append(_encoding("assign train", corpus, recipe.assign, store, device))
        seconds, bytes_each, clip_dim = time_extraction(
            recipe.assign, recipe.assign_batch, device, images, texts
        )
        done = min(total, count_done(out / ASSIGN_PHOTO_STORE, STORE_FORMAT))
        stages.append(Stage("assign photos", "images", total, done, seconds, bytes_each))
    captions = corpus.count - withheld
    return stages + refinement_cost(recipe, out, device, total, captions, clip_dim, texts)


def _encoding(
    name: str, corpus: FirstCaptions, settings: ExtractSettings, store: Path, device: str
) -> Stage:
    ShardFolder.check_settings(store, STORE_FORMAT, caption_store_record(settings))
    seconds, bytes_each = time_captions(settings, device, corpus)
    done = min(corpus.count, count_done(store, STORE_FORMAT))
    return Stage(name, "captions", corpus.count, done, seconds, bytes_each)
