"""Comparable record of the settings and data of a training."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.config import Config

from pcm_plugin.engine.config_modules import file_arguments
from pcm_plugin.engine.feature_checks import find_clips
from pcm_plugin.engine.inputs import HUB_KINDS, hash_inputs

RECORD = "run"
"""Key of the run's record in the message hub of a checkpoint."""

# Parts of a config on which the result of a training depends. Variables that only the config file
# itself uses are not among them.
_PARTS = (
    *("model", "train_dataloader", "val_dataloader", "val_evaluator", "train_cfg", "val_cfg"),
    *("optim_wrapper", "param_scheduler", "randomness", "custom_hooks", "data_preprocessor"),
    *("load_from", "sync_bn", "compile"),
)
# Settings of data loading and of output files do not change the result.
_WITHOUT_EFFECT = (
    *("num_workers", "persistent_workers", "prefetch_factor", "pin_memory"),
    *("dataset.data_prefix", "outfile", "per_image"),
)
# Hooks without effect on the result; of the checkpoint hook, how the best checkpoint is chosen.
_HOOKS_WITHOUT_EFFECT = (
    *("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint"),
    *("visualization", "vocabulary"),
)
_BATCH, _PROCESSES = "train_dataloader.batch_size", "processes"
# Settings that may change before a run is resumed. Schedules are compared by their rates.
_RESUMABLE_CHANGES = (
    *("train_cfg.", "val_cfg.", "param_scheduler.", "optim_wrapper.optimizer.lr", "load_from"),
    *("val_dataloader.batch_size", "val_evaluator.scorers", "custom_hooks."),
    "default_hooks.early_stopping.",
)

Record = dict[str, Any]


def record_run(cfg: Config, processes: int = 1) -> Record:
    """Return the settings and the data of a training.

    Args:
        cfg: The final config. Its input files exist.
        processes: Number of processes. Defaults to 1.

    Returns:
        ``settings``, JSON values by dotted key, and ``inputs``, content hashes by key (see
        :func:`.hash_inputs`). The settings contain no paths of input files, so data may be moved.
        ``clip`` is the name of the CLIP of the features (see :func:`.find_clips`), None if unknown.
    """
    inputs = hash_inputs(cfg, ("train", "val"))
    settings: dict[str, Any] = {_PROCESSES: processes}
    values = json.loads(json.dumps(cfg.to_dict(), default=str))
    for part in _PARTS:
        if values.get(part) is not None:
            settings.update(_flatten(part, values[part]))
    hooks = values.get("default_hooks") or {}
    for key in ("save_best", "rule"):
        settings[f"default_hooks.checkpoint.{key}"] = (hooks.get("checkpoint") or {}).get(key)
    for name, hook in hooks.items():
        if name not in _HOOKS_WITHOUT_EFFECT and hook is not None:
            settings.update(_flatten(f"default_hooks.{name}", hook))
    # The name of a language model on a hub is a setting, its folder an input.
    paths = {
        argument.key
        for argument in file_arguments(cfg)
        if argument.kind not in HUB_KINDS or argument.key in inputs
    }
    kept = {
        key: value
        for key, value in settings.items()
        if key not in paths and not (_is_loading(key) and key.endswith(_WITHOUT_EFFECT))
    }
    clip = next(iter(find_clips(cfg, ("train",)).values()), None)
    return {"settings": kept, "inputs": inputs, "clip": clip}


def find_changes(old: Record, new: Record) -> list[str]:
    """Return the differences between two trainings, one line per setting.

    The number of processes and the batch size of each are compared as their product.
    """
    one, other = (_with_total_batch(record["settings"]) for record in (old, new))
    return [*_changed_inputs(old, new), *_changed(one, other)]


def find_changes_for_resume(old: Record, new: Record) -> list[str]:
    """Return the differences that prevent a run from being resumed, one line per setting.

    The length of the run, its schedule, and settings of the validation may differ.
    """
    changes = _changed(old["settings"], new["settings"])
    return [
        *_changed_inputs(old, new),
        *(change for change in changes if not change.startswith(_RESUMABLE_CHANGES)),
    ]


def find_schedule_changes(old: Record, new: Record) -> list[str]:
    """Return the differences in length and learning rates of two runs, one line per setting."""
    places = ("train_cfg.max_", "param_scheduler.", "optim_wrapper.optimizer.lr")
    return [c for c in _changed(old["settings"], new["settings"]) if c.startswith(places)]


def _is_loading(key: str) -> bool:
    return "dataloader." in key or "evaluator." in key


def _with_total_batch(settings: Mapping[str, Any]) -> dict[str, Any]:
    rest = {k: v for k, v in settings.items() if k not in (_BATCH, _PROCESSES)}
    if _BATCH in settings:
        rest["batch of all processes"] = settings[_BATCH] * settings[_PROCESSES]
    return rest


def _changed_inputs(old: Record, new: Record) -> list[str]:
    keys = sorted(old["inputs"].keys() | new["inputs"].keys())
    return [
        f"{key}: other data" for key in keys if old["inputs"].get(key) != new["inputs"].get(key)
    ]


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [
        f"{key}: {_shown(old, key)} there, {_shown(new, key)} here"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def _shown(settings: Mapping[str, Any], key: str) -> str:
    return repr(settings[key]) if key in settings else "not set"


def _flatten(place: str, value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        parts: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list) and any(isinstance(part, dict) for part in value):
        parts = enumerate(value)
    else:
        yield place, value
        return
    for key, part in parts:
        yield from _flatten(f"{place}.{key}", part)
