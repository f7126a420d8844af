"""Identity of the data and settings of a run, and the CLIP head that only training needs."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope

from pcm_plugin.engine.config_modules import iter_modules, list_input_files
from pcm_plugin.formats.atomic_io import fingerprint, folder_sha256, sha256
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.required_file import FileKind, ReadsFiles
from pcm_plugin.models.backbones.clip_weights import model_identity
from pcm_plugin.models.backbones.weights_file import weights_identity

TEST_KEYS = ("model", "test_dataloader", "test_evaluator", "test_cfg")
"""The parts of a config on which scores depend."""

HUB_KINDS = (FileKind.LANGUAGE_MODEL, FileKind.TOKENIZER)
"""Files that may be names on a model hub instead."""


def drop_clip_head(cfg: Config) -> None:
    """Remove the file of CLIP's image head from a config: trained weights contain the head.

    Args:
        cfg: The config, changed in place.
    """
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope")):
        for module in list(iter_modules(cfg.get("model") or {})):
            if issubclass(module.cls, ReadsFiles):
                for name, kind in module.cls.input_files.items():
                    if kind is FileKind.CLIP_HEAD and name in module.settings:
                        module.settings[name] = None  # type: ignore[index]


def hash_inputs(cfg: Config, loops: Iterable[str]) -> dict[str, str]:
    """Return names of the input files by content: equal data has equal names, wherever it is.

    Folders of images are left out, since the feature store identifies them, and so are language
    models on a hub. A second CLIP for re-ranking is included if it is a local folder or has a
    weights file.

    Args:
        cfg: The final config. Its input files exist.
        loops: Loops that will run: ``train``, ``val`` and ``test``.

    Returns:
        The first 16 digits of a SHA-256 by key of the config, e.g. ``'model.neck.concepts'``.
    """
    files = [file for file in list_input_files(cfg, loops) if file.kind != FileKind.IMAGE_FOLDER]
    found = {
        file.key: _content_hash(Path(file.path))
        for file in sorted(files, key=lambda file: file.key)
        if file.kind not in HUB_KINDS or Path(file.path).exists()
    }
    return found | _hash_second_clip((cfg.get("model") or {}).get("decoding") or {})


def is_validated_on_held_out(cfg: Config) -> bool:
    """Return whether validation is on generated images of held-out captions, not on real images.

    Only such a split has a file of references; real images have their captions in their store.
    """
    dataset = (cfg.get("val_dataloader") or {}).get("dataset") or {}
    return dataset.get("references") is not None


def hash_settings(cfg: Config, parts: Iterable[str]) -> str:
    """Return a short name for parts of a config: only equal settings share it.

    Args:
        cfg: The config.
        parts: Its keys, such as ``'model'``.
    """
    settings = {part: cfg.to_dict().get(part) for part in parts}
    return fingerprint(json.loads(json.dumps(settings, default=str)))


def _hash_second_clip(decoding: Mapping[str, Any]) -> dict[str, str]:
    """Return the hash of a local ``rerank_clip`` by its key; empty without one."""
    name, pretrained = decoding.get("rerank_clip"), decoding.get("rerank_clip_pretrained")
    if name is None:
        return {}
    identity = [model_identity(name), weights_identity(pretrained)]
    is_local = identity != [name, pretrained]
    return {"model.decoding.rerank_clip": fingerprint(identity)} if is_local else {}


def _content_hash(path: Path) -> str:
    if not path.is_dir():
        return sha256(path)[:16]
    # Only a feature store has a manifest; the folder of a language model has none.
    is_store = (path / "manifest.json").is_file()
    return FeatureStore(path).identity if is_store else folder_sha256(path)[:16]
