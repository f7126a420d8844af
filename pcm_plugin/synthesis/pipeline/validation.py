"""Captions that are held out for validation, with their generated images.

The folder ``validation/`` of a data set contains

- ``references.jsonl``: the images of the captions for validation, with their references: the
  caption and the other captions of its image in the caption file;
- ``train_pairs.safetensors``: all other pairs, without near-duplicates of those captions.

Both are selections from ``train_store``, whose features are not copied.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import fingerprint
from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.captions.record import Caption
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.image_references import save_references
from pcm_plugin.formats.languages import is_english, split_words
from pcm_plugin.formats.pair_selection import PairSelection, load_pairs
from pcm_plugin.formats.shards import Shard, ShardFolder
from pcm_plugin.synthesis.pipeline.held_out import MIN_IMAGES, HeldOut, hold_out
from pcm_plugin.synthesis.pipeline.recipes import Recipe
from pcm_plugin.synthesis.ranks import Rank
from pcm_plugin.synthesis.sharing import claim_shards

FORMAT = "pcm-validation"
"""Format name in the manifest."""

FOLDER = "validation"
"""Name of the folder in that of the data set."""

PAIRS_FOLDER = "pairs"
"""Folder of the refined pairs, which depend on the split."""

REFERENCES = f"{FOLDER}/references.jsonl"
TRAIN_PAIRS = f"{FOLDER}/train_pairs.safetensors"

VALIDATION_STORE = f"{FOLDER}/store"
"""Features of the generated images, if those of the other captions are not generated."""


class Summary(NamedTuple):
    """Numbers of captions.

    Attributes:
        captions: All captions of the corpus.
        validation: Captions that are held out for validation.
        near_duplicates: Near-duplicates of them, which are not used.
    """

    captions: int
    validation: int
    near_duplicates: int

    def __str__(self) -> str:
        """Format what is held out, and what the scores are good for."""
        if not self.validation:
            return (
                f"validation: none of the {self.captions:,} captions are held out, since fewer "
                f"than {MIN_IMAGES} images could be: there are too few captions "
                "(validation.captions and .max_share), images have too many captions, too many "
                "captions are near-duplicates (validation.similarity), or those that were chosen "
                "have no image; the last checkpoint is the one to use"
            )
        return (
            f"validation: {self.validation:,} of {self.captions:,} captions are held out with "
            f"their generated images, and {self.near_duplicates:,} near-duplicates of them are not "
            "used; the scores are those on generated images, only for comparing checkpoints"
        )


def make_validation(recipe: Recipe, out: Path, rank: Rank) -> None:
    """Divide the pairs of a data set into training and validation.

    A second run does nothing. If captions were added, the choice is made again.

    Args:
        recipe: The recipe, with settings of the validation.
        out: Folder of the data set, with its corpus and a finished ``train_store``.
        rank: Rank of this process. The first free one does the work; the others wait.

    Raises:
        UserError: If the choice was made with other settings, or for other features of the same
            captions.
    """
    check_split_settings(recipe, out)
    generate = recipe.generate
    assert generate is not None
    (corpus,) = ShardFolder(out / "corpus", None).shards.values()
    store = FeatureStore(out / "train_store")
    digest = fingerprint([corpus["digest"], store.identity])
    wanted = [Shard("split", corpus["num_source"], digest)]
    _refuse_another_store(out, corpus["num_source"], store)
    folder = ShardFolder.open_for_write(out / FOLDER, FORMAT, _made_with(recipe), wanted)
    for _, tick in claim_shards(folder, wanted, rank, "validation", "caption"):
        captions = list(CaptionFile(out / "corpus" / "captions.jsonl"))
        held_out = choose_held_out(captions, recipe)
        several = generate.images_per_caption > 1
        if recipe.photos_alone:
            references = _drawn_references(out, captions, held_out)
            pairs = _pairs_without(store, held_out)
        else:
            references, pairs = divide_pairs(store, captions, held_out, generate.unique, several)
        files = []
        if references:
            save_references(out / REFERENCES, references)
            pairs.to_file(out / TRAIN_PAIRS, store.identity)
            files = [Path(REFERENCES).name, Path(TRAIN_PAIRS).name]
        tick(len(captions))
        near = len(held_out.near_duplicates)
        identity = store.identity
        folder.commit(wanted[0], files, len(references), near_duplicates=near, store=identity)


def _drawn_references(
    out: Path, captions: Sequence[Caption], held_out: HeldOut
) -> dict[str, list[str]]:
    """Return the references of the images that were generated for validation alone."""
    if not held_out.validation:
        return {}
    if not (out / VALIDATION_STORE / "manifest.json").is_file():
        raise MissingFileError(
            f"no features of held-out images in {out / VALIDATION_STORE}: run the stages generate "
            "and extract of pcm make-dataset"
        )
    return divide_pairs(FeatureStore(out / VALIDATION_STORE), captions, held_out)[0]


def _pairs_without(store: FeatureStore, held_out: HeldOut) -> PairSelection:
    """Return the pairs of a store of captions alone, which has them in the order of the corpus."""
    pairs = load_pairs(store)
    withheld = [*held_out.validation, *held_out.near_duplicates]
    selected = ~np.isin(pairs.caption, withheld)
    return PairSelection(*(values[selected] for values in pairs))


def choose_held_out(captions: Sequence[Caption], recipe: Recipe) -> HeldOut:
    """Choose the captions that are held out by a recipe with settings of the validation."""
    assert recipe.validation is not None
    image_ids, texts = [c.image_id for c in captions], [c.text for c in captions]
    words = partial(split_words, language=recipe.vocabulary.language)
    return hold_out(image_ids, texts, words, recipe.validation)


def check_split_settings(recipe: Recipe, out: Path) -> None:
    """Check that an existing split was made with the settings of a recipe.

    Args:
        recipe: The recipe, with settings of the validation.
        out: Folder of the data set, possibly without a split.

    Raises:
        UserError: If it was made with other settings or for captions of another language, or its
            manifest is damaged.
    """
    try:
        ShardFolder.check_settings(out / FOLDER, FORMAT, _made_with(recipe))
    except UserError as error:
        raise UserError(
            f"{error}; or remove {removable(out)}, and run pcm make-dataset again"
        ) from None


def removable(out: Path) -> str:
    """Return the folders to remove before captions are held out again, for a message."""
    folders = [out / FOLDER, out / PAIRS_FOLDER]
    return " and ".join(str(folder) for folder in folders if folder.exists())


def _made_with(recipe: Recipe) -> dict[str, Any]:
    """Return the settings on which the split depends."""
    settings, language = recipe.validation, recipe.vocabulary.language
    record = {k: v for k, v in settings.__dict__.items() if k != "patience"}
    # The language decides what the words are whose near-duplicates are left out.
    return record if is_english(language) else record | {"language": language}


def _refuse_another_store(out: Path, captions: int, store: FeatureStore) -> None:
    if not (out / FOLDER / "manifest.json").is_file():
        return
    for record in ShardFolder(out / FOLDER, FORMAT).shards.values():
        if record["num_source"] == captions and record.get("store") != store.identity:
            raise UserError(
                f"{out / FOLDER} was made for other features than those in {store.path}: remove "
                f"{removable(out)}, and run pcm make-dataset again"
            )


def read_summary(out: Path) -> Summary:
    """Return the numbers of captions of :func:`make_validation`.

    Args:
        out: Folder of the data set.

    Raises:
        MissingFileError: If it was not called for this data set.
        UserError: If it was interrupted, or a file is missing or cut.
    """
    fix = f"run the stage extract of pcm make-dataset for {out}"
    if not (out / FOLDER / "manifest.json").is_file():
        raise MissingFileError(f"no captions are held out yet in {out / FOLDER}: {fix}")
    folder = ShardFolder(out / FOLDER, FORMAT)
    records = [*folder.shards.values()]
    if not records or folder.find_damaged(checksums=False):
        raise UserError(f"{out / FOLDER} is unfinished, or files in it are missing or cut: {fix}")
    try:
        return Summary(*(records[0][key] for key in ("num_source", "count", "near_duplicates")))
    except KeyError as error:
        raise UserError(
            f"{out / FOLDER}/manifest.json has no {error}: remove {removable(out)}, and {fix}"
        ) from None


def divide_pairs(
    store: FeatureStore,
    captions: Sequence[Caption],
    held_out: HeldOut,
    unique: bool = False,
    several: bool = False,
) -> tuple[dict[str, list[str]], PairSelection]:
    """Divide the images of a store into those for validation and those for training.

    Args:
        store: Features of the images that were generated for the captions.
        captions: The captions.
        held_out: Positions of those that are held out.
        unique: Whether captions of equal text share an image. Defaults to False.
        several: Whether captions have several images. Defaults to False.

    Returns:
        The references of each image for validation, by its id, and the pairs for training.
    """

    def key_of(caption: Caption) -> str:
        # With `unique`, captions of equal text share an image.
        return caption.text if unique else caption.id

    chosen = [captions[i] for i in held_out.validation]
    texts: dict[str, list[str]] = {}
    for caption in chosen:
        texts.setdefault(caption.image_id, []).append(caption.text)
    references: dict[str, list[str]] = {}
    for caption in chosen:
        own = references.setdefault(key_of(caption), [caption.text])
        own.extend(text for text in texts[caption.image_id] if text not in own)
    withheld = {*references, *(key_of(captions[i]) for i in held_out.near_duplicates)}
    images: dict[str, list[str]] = {}
    is_training = np.ones(len(store), bool)
    for i in range(len(store)):
        record = store.record(i)
        key = record["image_id"]
        if unique:
            key = record["captions"][0]
        elif several:
            key = key.rpartition("-")[0]
        is_training[i] = key not in withheld
        # One image of each caption is enough.
        if key in references:
            images[record["image_id"]] = references.pop(key)
    pairs = load_pairs(store)
    selected = is_training[pairs.image]
    return images, PairSelection(*(values[selected] for values in pairs))
