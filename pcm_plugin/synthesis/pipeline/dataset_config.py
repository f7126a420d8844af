"""Training configs of a data set: ``config.py`` for PCM-Net and ``syntic.py`` for SynTIC.

They inherit ``configs/pcm_custom.py`` and ``configs/syntic/syntic_custom.py``, and contain what
depends on the data set: paths, feature sizes, settings of the recipe and the warm-up.
"""

import keyword
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config

from pcm_plugin.formats.atomic_io import write_bytes
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.pair_selection import PAIRS_FILE
from pcm_plugin.packaged_files import CONFIGS, PACKAGE
from pcm_plugin.synthesis.pipeline.recipes import Recipe

CONFIG = "config.py"
"""Config of PCM-Net in the data set's folder."""

SYNTIC_CONFIG = "syntic.py"
"""Config of SynTIC, which inherits :data:`CONFIG`."""

_LOCAL = "local-dir:"
_MIN_WARMUP = 100
_WARMUP_SHARE = 1 / 20  # of all iterations, as on COCO


class _Expression(str):
    """Python source that is written as it is, instead of as a string."""


def write_configs(recipe: Recipe, out: Path, real_splits: list[str]) -> None:
    """Write the configs of a finished data set.

    Args:
        recipe: Settings of the data set.
        out: Folder of the data set.
        real_splits: Those of ``'val'`` and ``'test'`` for which there is a store of real images.
    """
    settings = _format_settings(_settings(recipe, out, real_splits))
    text = f"""\
# PCM-Net on the data in this folder. Written by `pcm make-dataset`; pass it to `pcm train`.
_base_ = __import__("pcm_plugin").config_file("pcm_custom.py")

import os

# Paths are relative to this file, so the folder can be moved.
root = os.path.relpath("{{{{ fileDirname }}}}")
{settings}"""
    write_bytes(out / CONFIG, text.encode())
    syntic = (CONFIGS / "syntic" / "syntic_custom.py").read_text(encoding="utf-8")
    _, rest = syntic.split('_base_ = "../pcm_custom.py"\n')  # an error without that line
    text = f"""\
# SynTIC on the data in this folder. Written by `pcm make-dataset`; pass it to `pcm train`.
_base_ = "./{CONFIG}"
{rest}"""
    write_bytes(out / SYNTIC_CONFIG, text.encode())


def remove_configs(out: Path) -> None:
    """Remove the configs of a data set that is not finished any more."""
    for name in (CONFIG, SYNTIC_CONFIG):
        (out / name).unlink(missing_ok=True)


def _settings(recipe: Recipe, out: Path, real_splits: list[str]) -> dict[str, Any]:
    base = Config.fromfile(CONFIGS / "pcm_custom.py")
    store = FeatureStore(out / "train_store")
    count, batch_size = store.num_captions, base.train_dataloader.batch_size
    neck: dict[str, Any] = {
        "concepts": _path("corpus/concepts.safetensors"),
        "clip_head": _path("train_store/clip_head.safetensors"),
        **recipe.model.get("neck", {}),
        "patch_dim": store.patch_dim,
        "clip_dim": store.clip_dim,
        "num_patches": store.num_patches,
    }
    if store.patches_in_joint_space:
        neck |= {"patches_in_joint_space": True, "clip_head": None}
    pairs = f"pairs/{PAIRS_FILE}"
    is_refined = recipe.refine is not None and (out / pairs).is_file()
    iterations = count * base.train_cfg.max_epochs // batch_size
    peak = base.param_scheduler.warmup
    warmup = max(_MIN_WARMUP, min(peak, int(iterations * _WARMUP_SHARE)))
    settings: dict[str, Any] = {
        "clip": {
            "model_name": _model_name(recipe.extract.model, out),
            "pretrained": recipe.extract.pretrained,
            "pool": recipe.extract.pool,
            "patch_mode": recipe.extract.patch_mode,
        },
        "model": {
            "vocabulary": _path("corpus/vocabulary.txt"),
            **recipe.model,
            "neck": neck,
        },
        "train_dataloader": {
            # In a small corpus, the pairs that do not fill a batch are a good part of an epoch.
            "drop_last": count >= 10 * batch_size,
            "dataset": {
                "store": _path("train_store"),
                "pairs": _path(pairs) if is_refined else None,
            },
        },
        "param_scheduler": {"warmup": warmup, "embed_dims": neck.get("embed_dims", 512)},
        # The peak learning rate is that of COCO.
        "optim_wrapper": {"optimizer": {"lr": (warmup / peak) ** 0.5}},
    }
    for split in ("val", "test"):
        if split in real_splits:
            settings[f"{split}_dataloader"] = {"dataset": {"store": _path(f"{split}_store")}}
        else:
            settings |= {f"{split}_{part}": None for part in ("dataloader", "cfg", "evaluator")}
    return settings


def _path(inside: str) -> _Expression:
    return _Expression(f'f"{{root}}/{inside}"')


def _model_name(name: str, out: Path) -> str:
    """Return the name of a CLIP for the config.

    The config looks up a folder of this package when it is read. The path of a folder below the
    current one is relative to the config.
    """
    if not name.startswith(_LOCAL):
        return name
    folder = Path(os.path.normpath(name.removeprefix(_LOCAL)))
    if folder.resolve().is_relative_to(PACKAGE.resolve()):
        inside = folder.resolve().relative_to(PACKAGE.resolve()).as_posix()
        return _Expression(f'"{_LOCAL}" + __import__("pcm_plugin").packaged_file("{inside}")')
    if not folder.resolve().is_relative_to(Path.cwd()):
        return f"{_LOCAL}{folder}"
    return _Expression(f'f"{_LOCAL}{{root}}/{_relative(folder, out)}"')


def _relative(path: Path, out: Path) -> str:
    return Path(os.path.relpath(path.resolve(), out.resolve())).as_posix()


def _format_settings(settings: dict[str, Any]) -> str:
    return "".join(f"{name} = {_format(value)}\n" for name, value in settings.items())


def _format(value: Any, indent: str = "") -> str:
    """Return a value as Python source, one setting per line."""
    if isinstance(value, _Expression):
        return str(value)
    if not isinstance(value, dict) or not value:
        return repr(value)
    inner = f"{indent}    "
    if all(_is_argument_name(key) for key in value):
        lines = [f"{inner}{key}={_format(part, inner)},\n" for key, part in value.items()]
        return f"dict(\n{''.join(lines)}{indent})"
    lines = [f"{inner}{key!r}: {_format(part, inner)},\n" for key, part in value.items()]
    return f"{{\n{''.join(lines)}{indent}}}"


def _is_argument_name(key: Any) -> bool:
    return isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key)
