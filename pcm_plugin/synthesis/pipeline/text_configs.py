"""Training configs of captions alone: a prefix captioner, CapDec and DeCap.

They inherit ``configs/prefix/prefix_text_custom.py``, or ``prefix_text_custom_small.py`` if the
recipe has a language model of its own; ``configs/capdec/capdec_custom.py``; and
``configs/decap/decap_custom.py``. They contain what depends on the data set: paths, feature sizes,
settings of the recipe and the warm-up.
"""

from pathlib import Path
from typing import Any

from mmengine.config import Config

from pcm_plugin.formats.atomic_io import write_bytes
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.packaged_files import CONFIGS
from pcm_plugin.synthesis.pipeline.config_source import config_source, data_path
from pcm_plugin.synthesis.pipeline.corpus import LANGUAGE_MODEL
from pcm_plugin.synthesis.pipeline.dataset_config import (
    clip_settings,
    drops_last,
    noam_settings,
    split_settings,
    vocabulary_settings,
    warmup_iterations,
)
from pcm_plugin.synthesis.pipeline.recipes import Recipe
from pcm_plugin.synthesis.pipeline.text_captioners import TEXT_CAPTIONERS

_CONCEPTS = "corpus/concepts.safetensors"


def write_text_configs(recipe: Recipe, out: Path, real_splits: list[str]) -> None:
    """Write the configs of a finished data set of captions alone.

    Args:
        recipe: Settings of the data set.
        out: Folder of the data set.
        real_splits: Those of ``'val'`` and ``'test'`` for which there is a store of real images.
    """
    store = FeatureStore(out / "train_store")
    for name, (title, file, source) in TEXT_CAPTIONERS.items():
        if name == "prefix" and recipe.language_model is not None:
            source = source.replace(".py", "_small.py")
        base = Config.fromfile(CONFIGS / source)
        model = _merged(_model(name, recipe, store.clip_dim, out), recipe.model.get(name) or {})
        settings = {
            "clip": clip_settings(recipe, out),
            "model": model,
            "train_dataloader": {
                "drop_last": drops_last(base, store.num_captions),
                "dataset": {"store": data_path("train_store")},
            },
            **_schedule(base, store.num_captions, model),
            **split_settings(real_splits, recipe.vocabulary.language),
        }
        title = f"{title[0].upper()}{title[1:]} on the captions in this folder"
        write_bytes(out / file, config_source(title, source, settings))


def _model(name: str, recipe: Recipe, clip_dim: int, out: Path) -> dict[str, Any]:
    """Return the settings of a model that depend on the data set."""
    neck: dict[str, Any] = {"clip_dim": clip_dim}
    if name != "prefix":
        if name == "decap":
            neck["text_memory"] = data_path("train_store")
        return {**vocabulary_settings(recipe, out), "neck": neck}
    small, prompt = recipe.language_model, {"concepts": data_path(_CONCEPTS)}
    if small is None:
        return {"neck": neck, "entity_prompt": {**prompt, "caption_entities": prompt["concepts"]}}
    return {
        "neck": {**neck, "embed_dims": small.width},
        "mapper": {
            "embed_dims": small.width,
            "num_layers": small.layers,
            "num_heads": small.heads,
        },
        "language_model": data_path(f"corpus/{LANGUAGE_MODEL}"),
        "entity_prompt": prompt,
    }


def _schedule(base: Config, count: int, model: dict[str, Any]) -> dict[str, Any]:
    """Return the schedule of a config for ``count`` captions."""
    if not isinstance(base.param_scheduler, list):
        width = model["neck"].get("embed_dims", base.model.neck.embed_dims)
        return noam_settings(base, count, width)
    # ViECap's: the rate rises linearly, then decreases to 0 at the end of the run.
    rise, fall = (dict(part) for part in base.param_scheduler)
    warmup = warmup_iterations(base, count, rise["end"])
    rise |= {"start_factor": 1 / warmup, "end": warmup}
    return {"param_scheduler": [rise, fall | {"begin": warmup}]}


def _merged(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return nested settings with changes."""
    merged = dict(settings)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            merged[key] = _merged(old, value)
        else:
            merged[key] = value
    return merged
