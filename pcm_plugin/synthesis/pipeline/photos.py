"""Photos without captions in a data set: their features, and the pool of the stage ``refine``.

The folder of the data set gets

- ``photo_store/``: features of the photos; ``assign_photo_store/``: those of the model that assigns
  captions, if the recipe has one;
- ``pairs/store/``: the store that ``pairs/pairs.safetensors`` refers to, which holds generated
  images and photos.
"""

from pathlib import Path

from pcm_plugin.errors import UserError
from pcm_plugin.formats.feature_shard import FORMAT
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.images.image_io import read_image
from pcm_plugin.formats.pair_selection import PairSelection
from pcm_plugin.formats.shards import ShardFolder
from pcm_plugin.synthesis.extract.extract_features import extract_features
from pcm_plugin.synthesis.extract.open_source import open_source
from pcm_plugin.synthesis.extract.sources import Source
from pcm_plugin.synthesis.pipeline.photo_pool import (
    POOL_STORE,
    merge_pool,
    pool_among,
    refine_with_pool,
)
from pcm_plugin.synthesis.pipeline.recipes import Recipe
from pcm_plugin.synthesis.pipeline.validation import PAIRS_FOLDER
from pcm_plugin.synthesis.ranks import Rank
from pcm_plugin.synthesis.refine.assignment import Among
from pcm_plugin.synthesis.refine.pairs import check_among

PHOTO_STORE = "photo_store"
"""Folder of the features of the photos."""

ASSIGN_PHOTO_STORE = "assign_photo_store"
"""Folder of the features of the photos by the model that assigns captions."""


def open_photos(recipe: Recipe) -> Source | None:
    """Open the photos of a recipe, and read images until one can be decoded.

    Args:
        recipe: The recipe.

    Returns:
        The photos; None for a recipe without photos.

    Raises:
        MissingFileError: If there is no such folder.
        UserError: If it contains no images, or none of the first shard can be read.
    """
    if recipe.photos is None:
        return None
    source = open_source(recipe.photos.folder, "none", recipe.shard_size)
    reason: Exception | None = None
    for image in source.read(source.shards[0]):
        try:
            read_image(image.data())
        except (OSError, UserError) as error:
            reason = reason or error
        else:
            return source
    raise UserError(
        f"none of the first {source.shards[0].count:,} photos in {recipe.photos.folder} can be "
        f"read ({reason}): pass a folder of images with --photos"
    )


def check_photos(recipe: Recipe, out: Path, photos: Source | None) -> None:
    """Check that existing results of a data set were made with these photos, or without any.

    Args:
        recipe: The recipe.
        out: Folder of the data set.
        photos: The photos, see :func:`open_photos`.

    Raises:
        UserError: If not. The message names the folders to remove.
    """
    pairs = out / PAIRS_FOLDER
    used = (pairs / POOL_STORE / "manifest.json").is_file()
    if photos is None:
        if used:
            raise UserError(f"{pairs} was made with photos: pass --photos, or remove {pairs}")
        return
    if (pairs / "manifest.json").is_file() and not used:
        raise UserError(f"{pairs} was made without photos: remove {pairs}, or omit --photos")
    stores = [out / name for name in (PHOTO_STORE, ASSIGN_PHOTO_STORE)]
    there = [path for path in stores if (path / "manifest.json").is_file()]
    planned = {shard.name: shard.digest for shard in photos.shards}
    for path in there:
        made_of = {n: r["digest"] for n, r in ShardFolder(path, FORMAT).shards.items()}
        # Refined pairs need all photos; before, some shards may not be made yet.
        if made_of != planned if used else made_of.items() - planned.items():
            folders = [*there, *([pairs] if pairs.exists() else [])]
            raise UserError(
                f"{path} was made from other photos than those in --photos: pass the same photos, "
                f"or remove {' and '.join(map(str, folders))}"
            )


def extract_photos(
    recipe: Recipe, out: Path, photos: Source, device: str | None, rank: Rank
) -> None:
    """Extract the features of the photos of a data set."""
    extract_features(
        photos, recipe.extract, out / PHOTO_STORE, recipe.extract_batch, device, rank=rank
    )
    if recipe.assign is not None:
        store = out / ASSIGN_PHOTO_STORE
        extract_features(photos, recipe.assign, store, recipe.assign_batch, device, rank=rank)


def check_pool(recipe: Recipe, out: Path, among: Among | None) -> None:
    """Check that existing pairs were chosen among the images and captions that are used now.

    Args:
        recipe: The recipe, with photos.
        out: Folder of the data set.
        among: Images and captions of ``train_store`` that are trained on; None for all.

    Raises:
        UserError: If not.
    """
    assert recipe.photos is not None
    if not (out / PAIRS_FOLDER / "manifest.json").is_file():
        return
    stores = FeatureStore(out / "train_store"), FeatureStore(out / PHOTO_STORE)
    check_among(out / PAIRS_FOLDER, pool_among(*stores, recipe.photos.images, among))


def refine_with_photos(
    recipe: Recipe, out: Path, among: Among | None, device: str | None, rank: Rank
) -> PairSelection:
    """Assign captions of a data set to its photos.

    Args:
        recipe: The recipe, with photos.
        out: Folder of the data set, with the features of images and photos.
        among: Images and captions of ``train_store`` that are trained on; None for all.
        device: Device of the computation.
        rank: Rank of this process.
    """
    assert recipe.photos is not None
    assert recipe.refine is not None
    assigning = None
    if recipe.assign is not None:
        assigning = out / PAIRS_FOLDER / "assign_store"
        merge_pool(out / "assign_store", out / ASSIGN_PHOTO_STORE, assigning)
    return refine_with_pool(
        out / "train_store",
        out / PHOTO_STORE,
        recipe.refine,
        out / PAIRS_FOLDER,
        recipe.photos.images,
        chunk=recipe.refine_chunk,
        device=device,
        rank=rank,
        assign_store=assigning,
        among=among,
    )
