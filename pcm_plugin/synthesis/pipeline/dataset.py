"""All stages of a training data set, from a caption file to a folder with a training config.

The stages write to one folder:

- ``corpus/``: ``captions.jsonl``, ``vocabulary.txt``, ``concepts.txt``, ``concepts.safetensors``;
- ``synthetic/``: image shards;
- ``train_store/``: their features; ``val_store/`` and ``test_store/``: those of real images;
- ``assign_store/``: features of the model that assigns captions, if the recipe has one;
- ``validation/``: captions that are held out with their generated images, unless there are real
  images for validation;
- ``pairs/``: the chosen pairs, if the recipe refines pairs;
- ``photo_store/`` and ``pairs/store/``: features of photos without captions, and of these with the
  generated images, see :mod:`pcm_plugin.synthesis.pipeline.photos`;
- ``config.py`` and ``syntic.py``: training configs of PCM-Net and SynTIC.

With photos alone, ``train_store/`` has the features of captions alone, and images are only
generated for validation, see :mod:`pcm_plugin.synthesis.pipeline.photos_alone`.

A text recipe generates no images: ``train_store/`` has the features of captions alone, and the
configs are ``config.py`` of the prefix captioner, ``capdec.py`` and ``decap.py``.

Each stage can be interrupted and run again, and several processes can share it. They wait for each
other after each stage.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pcm_plugin.errors import UserError
from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.pair_selection import PAIRS_FILE
from pcm_plugin.formats.shards import ShardFolder
from pcm_plugin.synthesis.extract.encode_captions import encode_captions
from pcm_plugin.synthesis.extract.extract_features import extract_features
from pcm_plugin.synthesis.extract.open_source import open_source
from pcm_plugin.synthesis.extract.sources import GeneratedImages, Source
from pcm_plugin.synthesis.generate.generate_images import generate_images
from pcm_plugin.synthesis.pipeline.corpus import make_corpus
from pcm_plugin.synthesis.pipeline.dataset_checks import check_folder, check_pairs, check_stages
from pcm_plugin.synthesis.pipeline.dataset_config import write_configs
from pcm_plugin.synthesis.pipeline.photos import (
    check_photos,
    extract_photos,
    open_photos,
    refine_with_photos,
)
from pcm_plugin.synthesis.pipeline.photos_alone import extract_held_out, generate_held_out
from pcm_plugin.synthesis.pipeline.recipes import Recipe
from pcm_plugin.synthesis.pipeline.text_configs import write_text_configs
from pcm_plugin.synthesis.pipeline.validation import (
    PAIRS_FOLDER,
    TRAIN_PAIRS,
    check_split_settings,
    make_validation,
    read_summary,
)
from pcm_plugin.synthesis.ranks import Rank
from pcm_plugin.synthesis.refine.assignment import Among
from pcm_plugin.synthesis.refine.pairs import refine_pairs

RealImages = Mapping[str, tuple[str, "str | CaptionFile"]]


def make_dataset(
    captions: CaptionFile,
    recipe: Recipe,
    out: Path,
    stages: Sequence[str] | None = None,
    real_splits: RealImages | None = None,
    limit: int | None = None,
    device: str | None = None,
    rank: Rank | None = None,
) -> None:
    """Run the stages in order; results that exist are not made again.

    If captions were appended to the file, or ``limit`` has grown, vocabulary and concepts are made
    again, and images and features are added for the new captions.

    Args:
        captions: The corpus.
        recipe: The recipe.
        out: Folder to write.
        stages: The stages to run, from those of the recipe. Defaults to None, all.
        real_splits: For ``'val'`` and ``'test'``, a folder of real images and a caption file that
            names them. A path is read with the same options as ``captions``, see
            :func:`captions_of`. Defaults to None.
        limit: Use only the first ``limit`` captions. Defaults to None, all.
        device: Device of the models. Defaults to a GPU if there is one.
        rank: Rank of this process. Defaults to that of torchrun or srun.

    Raises:
        MissingFileError: If an input is missing.
        UserError: If an input is invalid, the recipe has no such stage, or the folder was made with
            other settings or captions.
    """
    rank = rank or Rank.from_environment()
    stages = check_stages(stages, recipe)
    check_folder(recipe, out)
    held_out = has_held_out(recipe, out, real_splits or {})
    # All inputs are checked before the first stage, which may take hours.
    if held_out:
        check_split_settings(recipe, out)
    sources = real_sources(real_splits or {}, recipe, captions)
    photos = open_photos(recipe)
    check_photos(recipe, out, photos)
    check_rephrasings(captions, recipe)
    make_corpus(captions, recipe, out / "corpus", limit, rank, make="corpus" in stages)
    corpus = CaptionFile(out / "corpus" / "captions.jsonl")
    alone = recipe.photos_alone
    if "generate" in stages and alone and held_out:
        generate_held_out(recipe, out, device, rank)
    elif "generate" in stages and recipe.generate is not None and not alone:
        images, batch = out / "synthetic", recipe.generate_batch
        generate_images(corpus, recipe.generate, images, batch, device, None, rank, recipe.offload)
    if "extract" in stages:
        if recipe.generate is None or alone:
            encode_captions(corpus, recipe.extract, out / "train_store", device, rank=rank)
        else:
            sources["train"] = open_source(out / "synthetic", None, 1)
        for split, source in sources.items():
            store, batch = out / f"{split}_store", recipe.extract_batch
            extract_features(source, recipe.extract, store, batch, device, rank=rank)
        if alone and held_out:
            extract_held_out(recipe, out, device, rank)
        if recipe.assign is not None and alone:
            encode_captions(corpus, recipe.assign, out / "assign_store", device, rank=rank)
        elif recipe.assign is not None:
            store, batch = out / "assign_store", recipe.assign_batch
            extract_features(sources["train"], recipe.assign, store, batch, device, rank=rank)
    if "photos" in stages and photos is not None:
        extract_photos(recipe, out, photos, device, rank)
    if held_out and ("extract" in stages or "refine" in stages):
        make_validation(recipe, out, rank)
    if "refine" in stages and recipe.refine is not None:
        among = _trained_on(out, held_out)
        check_pairs(recipe, out, among)
        if recipe.photos is not None:
            refine_with_photos(recipe, out, among, device, rank)
        else:
            refine_pairs(
                out / "train_store",
                recipe.refine,
                out / PAIRS_FOLDER,
                chunk=recipe.refine_chunk,
                device=device,
                rank=rank,
                assign_store=None if recipe.assign is None else out / "assign_store",
                among=among,
            )
    if rank.index == 0 and _all_stages_done(recipe, out):
        if recipe.generate is None:
            write_text_configs(recipe, out, _real_splits(out))
        else:
            if recipe.refine is not None:
                check_pairs(recipe, out, _trained_on(out, held_out))
            is_split = held_out and bool(read_summary(out).validation)
            write_configs(recipe, out, _real_splits(out), is_split)


def has_held_out(recipe: Recipe, out: Path, real_splits: Collection[str] = ()) -> bool:
    """Return whether captions of a data set are held out for validation.

    Args:
        recipe: The recipe.
        out: Folder of the data set.
        real_splits: Those of ``'val'`` and ``'test'`` for which real images are passed. Those in
            the folder count too.
    """
    is_real = "val" in real_splits or (out / "val_store" / "manifest.json").is_file()
    return recipe.validation is not None and not is_real


def check_rephrasings(captions: CaptionFile, recipe: Recipe) -> None:
    """Check that any rephrased captions of a recipe belong to the captions.

    Raises:
        UserError: If the file is invalid, or was made for other captions.
    """
    rephrasings = None if recipe.generate is None else recipe.generate.load_rephrasings()
    if rephrasings is not None:
        rephrasings.check(captions)


def real_sources(
    real_splits: RealImages, recipe: Recipe, captions: CaptionFile
) -> dict[str, Source]:
    """Open the real images of ``'val'`` and ``'test'``, and read their captions.

    Args:
        real_splits: See :func:`make_dataset`.
        recipe: The settings.
        captions: The corpus, with whose options paths of caption files are read.

    Raises:
        MissingFileError: If a folder, a file, or all of the first images are missing.
        UserError: If captions cannot be read, or name no images.
    """
    sources = {}
    for split, (images, file) in real_splits.items():
        named = file if isinstance(file, CaptionFile) else captions_of(split, file, captions)
        sources[split] = open_source(images, named, recipe.shard_size)
    return sources


def captions_of(split: str, path: str, captions: CaptionFile) -> CaptionFile:
    """Return a caption file of real images, read with the same options as the corpus.

    Args:
        split: The split to read if the file has splits.
        path: The file.
        captions: The corpus, see
            :meth:`~pcm_plugin.formats.captions.caption_file.CaptionFile.with_path`.
    """
    file = captions.with_path(path)
    return replace(file, split=split) if file.has_splits() else file


def _trained_on(out: Path, held_out: bool) -> Among | None:
    """Return the images and captions that are not held out, None if all are trained on."""
    if not held_out or not read_summary(out).validation:
        return None
    return Among.of_pairs(FeatureStore(out / "train_store"), out / TRAIN_PAIRS)


def _all_stages_done(recipe: Recipe, out: Path) -> bool:
    """Return whether there are images and features of all captions of the corpus."""
    no_images = recipe.generate is None or recipe.photos_alone
    names = ["corpus", "train_store"] + ([] if no_images else ["synthetic"])
    if not all(_is_complete(out / name) for name in names):
        return False
    corpus, store = (ShardFolder(out / name, None).shards.values() for name in names[:2])
    captions, features = (sum(r["num_source"] for r in records) for records in (corpus, store))
    if recipe.photos_alone and not (out / PAIRS_FOLDER / PAIRS_FILE).is_file():
        return False
    if recipe.generate is None or recipe.photos_alone:
        return captions == features
    wanted = captions * recipe.generate.images_per_caption
    try:
        generated = GeneratedImages(out / "synthetic")
    except UserError:
        return False
    images = ShardFolder(out / "synthetic", None).shards.values()
    missing = sum(r["num_source"] - r["count"] for r in images)
    available = sum(shard.count for shard in generated.shards)
    return (available + missing, features) == (wanted, available)


def _is_complete(path: Path) -> bool:
    return (path / "manifest.json").is_file() and ShardFolder(path, None).complete


def _real_splits(out: Path) -> list[str]:
    return [split for split in ("val", "test") if _is_complete(out / f"{split}_store")]
