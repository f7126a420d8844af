"""Training configs of a data set: ``config.py`` for PCM-Net and ``syntic.py`` for SynTIC.

They inherit ``configs/pcm_custom.py`` and ``configs/syntic/syntic_custom.py``, and contain what
depends on the data set: paths, feature sizes, settings of the recipe and the warm-up.
"""

import math
from pathlib import Path
from typing import Any

from mmengine.config import Config

from pcm_plugin.formats.atomic_io import write_bytes
from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.pair_selection import PAIRS_FILE, load_pairs
from pcm_plugin.formats.vocabulary_coverage import VocabularyCoverage
from pcm_plugin.formats.vocabulary_file import load_vocabulary
from pcm_plugin.packaged_files import CONFIGS
from pcm_plugin.synthesis.pipeline.config_source import (
    clip_model_name,
    config_source,
    data_path,
    path_from_config,
)
from pcm_plugin.synthesis.pipeline.photo_pool import POOL_STORE
from pcm_plugin.synthesis.pipeline.photos import PHOTO_STORE
from pcm_plugin.synthesis.pipeline.recipes import Recipe
from pcm_plugin.synthesis.pipeline.text_captioners import TEXT_CAPTIONERS
from pcm_plugin.synthesis.pipeline.validation import (
    PAIRS_FOLDER,
    REFERENCES,
    TRAIN_PAIRS,
    VALIDATION_STORE,
)

CONFIG = "config.py"
"""Config of PCM-Net in the data set's folder."""

SYNTIC_CONFIG = "syntic.py"
"""Config of SynTIC, which inherits :data:`CONFIG`."""

_MIN_WARMUP = 100
_WARMUP_SHARE = 1 / 20  # of all iterations, as on COCO


def write_configs(
    recipe: Recipe, out: Path, real_splits: list[str], held_out: bool = False
) -> None:
    """Write the configs of a finished data set.

    Args:
        recipe: Settings of the data set.
        out: Folder of the data set.
        real_splits: Those of ``'val'`` and ``'test'`` for which there is a store of real images.
        held_out: Whether captions are held out for validation on their generated images. Defaults
            to False.
    """
    settings = _settings(recipe, out, real_splits, held_out)
    source = config_source("PCM-Net on the data in this folder", "pcm_custom.py", settings)
    write_bytes(out / CONFIG, source)
    if recipe.photos_alone:  # SynTIC needs an image of each caption
        return
    syntic = (CONFIGS / "syntic" / "syntic_custom.py").read_text(encoding="utf-8")
    _, rest = syntic.split('_base_ = "../pcm_custom.py"\n')  # an error without that line
    text = f"""\
# SynTIC on the data in this folder. Written by `pcm make-dataset`; pass it to `pcm train`.
_base_ = "./{CONFIG}"
{rest}"""
    write_bytes(out / SYNTIC_CONFIG, text.encode())


def remove_configs(out: Path) -> None:
    """Remove the configs of a data set that is not finished any more."""
    text_configs = (captioner.config for captioner in TEXT_CAPTIONERS.values())
    for name in (CONFIG, SYNTIC_CONFIG, *text_configs):
        (out / name).unlink(missing_ok=True)


def _settings(recipe: Recipe, out: Path, real_splits: list[str], held_out: bool) -> dict[str, Any]:
    base = Config.fromfile(CONFIGS / "pcm_custom.py")
    pairs = TRAIN_PAIRS if held_out else None
    refined = f"{PAIRS_FOLDER}/{PAIRS_FILE}"
    if recipe.refine is not None and (out / refined).is_file():
        pairs = refined
    train = "train_store"
    if pairs == refined and recipe.photos is not None:
        # The pairs refer to the store of photos, with generated images or with captions alone.
        train = f"{PAIRS_FOLDER}/{POOL_STORE}"
    store = FeatureStore(out / train)
    neck: dict[str, Any] = {
        "concepts": data_path("corpus/concepts.safetensors"),
        "clip_head": data_path(f"{train}/clip_head.safetensors"),
        **recipe.model.get("neck", {}),
        "patch_dim": store.patch_dim,
        "clip_dim": store.clip_dim,
        "num_patches": store.num_patches,
    }
    if store.patches_in_joint_space:
        neck |= {"patches_in_joint_space": True, "clip_head": None}
    count = len(load_pairs(store, None if pairs is None else out / pairs).caption)
    length = training_length(base, count, recipe.training.min_iterations)
    epochs = length.get("train_cfg", {}).get("max_epochs")
    model = vocabulary_settings(recipe, out)
    decoding = {**model.pop("decoding", {}), **recipe.model.get("decoding", {})}
    model |= {**recipe.model, "neck": neck, **({"decoding": decoding} if decoding else {})}
    return {
        "clip": {
            **clip_settings(recipe, out),
            "pool": recipe.extract.pool,
            "patch_mode": recipe.extract.patch_mode,
        },
        "model": model,
        "train_dataloader": {
            "drop_last": drops_last(base, count),
            "dataset": {
                "store": data_path(train),
                "pairs": None if pairs is None else data_path(pairs),
            },
        },
        **length,
        **noam_settings(base, count, neck.get("embed_dims", 512), epochs),
        **_split_settings(recipe, real_splits, held_out),
        **_photo_settings(recipe, out),
        "default_hooks": _hooks(recipe, has_validation=held_out or "val" in real_splits),
    }


def _photo_settings(recipe: Recipe, out: Path) -> dict[str, Any]:
    """Return the store and the folder of the photos, which ``pcm report`` reads."""
    if recipe.photos is None:
        return {}
    images = path_from_config(recipe.photos.folder, out)
    return {"photos": {"store": data_path(PHOTO_STORE), "images": images}}


def _split_settings(recipe: Recipe, real_splits: list[str], held_out: bool) -> dict[str, Any]:
    """Return the settings of validation and test."""
    splits = [*real_splits, "val"] if held_out else real_splits
    settings = split_settings(splits, recipe.vocabulary.language)
    if held_out:
        store = VALIDATION_STORE if recipe.photos_alone else "train_store"
        files = {"store": data_path(store), "references": data_path(REFERENCES)}
        settings["val_dataloader"] = {"dataset": files}
    return settings


def _hooks(recipe: Recipe, has_validation: bool) -> dict[str, Any]:
    """Return the settings of early stopping and of the average of the weights, if there are any."""
    hooks: dict[str, Any] = {}
    patience = recipe.validation and recipe.validation.patience
    if patience and has_validation:
        hooks["early_stopping"] = {
            "type": "pcm_plugin.ResumableEarlyStoppingHook",
            "monitor": "caption/CIDEr",
            "rule": "greater",
            "min_delta": 0.0,
            "patience": patience,
        }
    epochs = recipe.training.average_epochs
    if epochs is not None:
        hooks["average"] = {"type": "pcm_plugin.AverageWeightsHook", "epochs": epochs}
    return hooks


def vocabulary_settings(recipe: Recipe, out: Path) -> dict[str, Any]:
    """Return the vocabulary of a model, and the ``max_len`` of a subword vocabulary.

    Args:
        recipe: Settings of the data set.
        out: Folder of the data set, with the corpus.
    """
    file = f"corpus/{recipe.vocabulary.file_name}"
    settings: dict[str, Any] = {"vocabulary": data_path(file)}
    if recipe.vocabulary.kind == "subword":
        captions = (caption.text for caption in CaptionFile(out / "corpus" / "captions.jsonl"))
        coverage = VocabularyCoverage.measure(load_vocabulary(out / file), captions)
        settings["decoding"] = {"max_len": coverage.max_len()}
    return settings


def clip_settings(recipe: Recipe, out: Path) -> dict[str, Any]:
    """Return name and weights of the CLIP for the config of a data set."""
    return {
        "model_name": clip_model_name(recipe.extract.model, out),
        "pretrained": recipe.extract.pretrained,
    }


def drops_last(base: Config, count: int) -> bool:
    """Return whether to drop the pairs that do not fill a batch.

    Args:
        base: Config with the batch size.
        count: Number of pairs. If it is small, the last ones are a good part of an epoch.
    """
    return count >= 10 * base.train_dataloader.batch_size


def training_length(base: Config, count: int, min_iterations: int | None) -> dict[str, Any]:
    """Return the number of epochs, and how often to validate; nothing if it is the published one.

    Args:
        base: Config with the batch size and the published number of epochs.
        count: Number of pairs.
        min_iterations: Least number of iterations; None for the published number of epochs.
    """
    batch = base.train_dataloader.batch_size
    per_epoch = count // batch if drops_last(base, count) else math.ceil(count / batch)
    published = base.train_cfg.max_epochs
    epochs = max(published, math.ceil((min_iterations or 0) / max(1, per_epoch)))
    if epochs == published:
        return {}
    # Validate as often as in the published number of epochs.
    return {"train_cfg": {"max_epochs": epochs, "val_interval": max(1, epochs // published)}}


def warmup_iterations(base: Config, count: int, longest: int, epochs: int | None = None) -> int:
    """Return the warm-up of a training: a twentieth of its iterations, as on COCO.

    Args:
        base: Config with the batch size and the number of epochs.
        count: Number of pairs.
        longest: Warm-up on COCO, which is not exceeded.
        epochs: Number of epochs. Defaults to that of the config.
    """
    iterations = count * (epochs or base.train_cfg.max_epochs) // base.train_dataloader.batch_size
    return max(_MIN_WARMUP, min(longest, int(iterations * _WARMUP_SHARE)))


def noam_settings(
    base: Config, count: int, embed_dims: int, epochs: int | None = None
) -> dict[str, Any]:
    """Return the settings of Noam's schedule for ``count`` pairs.

    Args:
        base: Config with the schedule on COCO.
        count: Number of pairs.
        embed_dims: Width of the model.
        epochs: Number of epochs. Defaults to that of the config.
    """
    peak = base.param_scheduler.warmup
    warmup = warmup_iterations(base, count, peak, epochs)
    return {
        "param_scheduler": {"warmup": warmup, "embed_dims": embed_dims},
        # The peak learning rate is that of COCO.
        "optim_wrapper": {"optimizer": {"lr": (warmup / peak) ** 0.5}},
    }


def split_settings(splits: list[str], language: str) -> dict[str, Any]:
    """Return the settings of validation and test, which are None without images.

    Args:
        splits: Those of ``'val'`` and ``'test'`` for which there is a store.
        language: Language of the captions.
    """
    settings: dict[str, Any] = {}
    for split in ("val", "test"):
        if split in splits:
            settings[f"{split}_dataloader"] = {"dataset": {"store": data_path(f"{split}_store")}}
            if language != "en":
                settings[f"{split}_evaluator"] = {"language": language}
        else:
            settings |= {f"{split}_{part}": None for part in ("dataloader", "cfg", "evaluator")}
    return settings
