"""Evaluation of a config on a data set other than its own (``pcm test --eval-on``)."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope

from pcm_plugin.commands.evaluation_names import EVALUATIONS
from pcm_plugin.engine.config_modules import iter_modules
from pcm_plugin.errors import UserError
from pcm_plugin.registry import MODELS


def apply_evaluation(cfg: Config, name: str) -> None:
    """Change a config so that it is tested on another data set.

    A file ``configs/_base_/eval/NAME.py`` has ``root``, the folder of its data set, ``captions``,
    which the commands that make its files read (optional), and a dict ``evaluation``:

    - ``store``: feature store of the images.
    - ``images``: folder of the images.
    - ``modules``: settings of modules of the model, by type. Only settings that the module has and
      that are not None are changed.
    - ``groups``: file that assigns images to groups that are scored apart (optional).
    - ``split``: argument ``--split`` in the command that makes ``store``; ``''`` for captions that
      have no splits (optional).
    - ``entities``: word list from which entities of prompts are made (optional).

    In paths, ``{root}`` stands for the folder of the data set and ``{features}`` for the folder of
    features in it, which has the same name as in the config, e.g. ``vit_b32``. A file with a dict
    ``target_texts``, settings by type as well, lets the model read captions of the data set. On the
    data set of the config nothing changes.

    Args:
        cfg: Config of the captioner. Changed in place.
        name: One of :func:`list_evaluations`.

    Raises:
        UserError: If the config has no test images or does not say where its data set is, or if
            ``name`` is a setting with target texts and the model reads none.
    """
    settings = Config.fromfile(EVALUATIONS / f"{name}.py")
    loader = cfg.get("test_dataloader")
    if loader is None or "store" not in loader.dataset or "root" not in cfg:
        raise UserError(
            f"`--eval-on {name}` needs a config with test_dataloader.dataset.store and root, the "
            f"folder of its data set, and {cfg.filename} lacks one of them: write a "
            "config for this evaluation"
        )
    is_own = Path(settings.root) == Path(cfg.root)
    features = os.path.relpath(Path(loader.dataset.store).parent, cfg.root)
    folders = {"root": settings.root, "features": features}
    evaluation = settings.evaluation
    if not is_own and Path(features).parts[:1] == ("..",):
        raise UserError(
            f"`--eval-on {name}` expects the store in {settings.root} at the same relative path as "
            "that of test_dataloader.dataset.store in root, but the store "
            f"`{loader.dataset.store}` is not in root=`{cfg.root}`: move the store, or write a "
            "config for this evaluation"
        )
    if not is_own:
        _change(loader.dataset, {"store": evaluation.store}, folders)
        for key in ("data_prefix", "img_dir"):
            _change(loader.dataset, {key: evaluation.images}, folders)
        _change_modules(cfg, evaluation.modules, folders)
        if "captions" in settings:
            # Its files are created from its captions, however the config's own files are created.
            commands = "generate_from_captions"
            source = dict(root=settings.root, captions=settings.captions, build_commands=commands)
            source |= {key: evaluation[key] for key in ("split",) if key in evaluation}
            cfg.extra_datasets = [*cfg.get("extra_datasets", []), source]
        if "entities" in evaluation:
            cfg.entities = evaluation.entities
        if "groups" in evaluation:
            cfg.test_evaluator.groups = evaluation.groups
    if "target_texts" in settings and (
        is_own or not _change_modules(cfg, settings.target_texts, folders)
    ):
        raise UserError(
            f"`--eval-on {name}`: the captioner of {cfg.filename} takes nothing from captions of "
            f"{settings.root}; use --eval-on {name.removesuffix('_tt')}"
        )


def _change_modules(cfg: Config, changes: Mapping[str, Any], folders: Mapping[str, str]) -> bool:
    """Change the settings of modules by their class; return whether any were changed."""
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope")):
        changed = [
            _change(module.settings, change, folders)
            for module in list(iter_modules(cfg.model))
            for kind, change in changes.items()
            if issubclass(module.cls, MODELS.get(kind))
        ]
    return any(changed)


def _change(settings: Any, changes: Mapping[str, Any], folders: Mapping[str, str]) -> bool:
    """Change the settings that are there and not None; return whether there were any."""
    is_changed = False
    for key, value in changes.items():
        if settings.get(key) is None:
            continue
        if isinstance(value, Mapping):
            is_changed |= _change(settings[key], value, folders)
        else:
            is_path = isinstance(value, str) and "{" in value
            settings[key] = os.path.normpath(value.format(**folders)) if is_path else value
            is_changed = True
    return is_changed
