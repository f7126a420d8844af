"""Checks of a config's values, before anything is built or written."""

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    DefaultScope,
    Registry,
)

LOOP_NAMES = ("train", "val", "test")
_DEFAULT_TYPES = {"optim_wrapper": "OptimWrapper", "train_cfg": "EpochBasedTrainLoop"}
# Keys that MMEngine takes from a part before it builds the part from the others.
_TAKEN_BY_MMENGINE = {
    "model": {"init_cfg"},
    "optim_wrapper": {"constructor", "paramwise_cfg"},
    "param_scheduler": {"convert_to_iter_based"},
    "train_cfg": {"by_epoch"},
    "default_hooks": {"priority"},
    "custom_hooks": {"priority"},
}
# What the runner reads from the top of a config in addition to what our configs have there.
_RUNNER_KEYS = (
    *("activation_checkpointing", "compile", "data_preprocessor", "default_scope"),
    *("efficient_conv_bn_eval", "experiment_name", "find_unused_parameters", "load_from"),
    *("log_processor", "model_wrapper_cfg", "other_data", "resume", "sync_bn", "visualizer"),
    *("vis_backends", "custom_hooks", "custom_imports", "auto_scale_lr", "randomness", "work_dir"),
    *("launcher", "test_evaluator", "val_evaluator", "test_cfg", "val_cfg", "env_cfg"),
)


def disable_worker_options(cfg: Config) -> None:
    """Drop the options of data loader workers where there are none.

    PyTorch refuses ``persistent_workers=True`` and ``prefetch_factor`` with ``num_workers=0``.

    Args:
        cfg: The config, changed.
    """
    for loop in LOOP_NAMES:
        loader = cfg.get(f"{loop}_dataloader")
        if loader and loader.get("num_workers", 0) == 0:
            loader.persistent_workers = False
            loader.pop("prefetch_factor", None)


def check_options(cfg: Config, options: Mapping[str, Any]) -> list[str]:
    """Check that options change settings that exist.

    Args:
        cfg: The config without the options.
        options: Values by dotted key, of ``--cfg-options``.

    Returns:
        Warnings about keys that are new in a part of which it is not known what it takes.

    Raises:
        ValueError: If a key begins with a name that neither the config nor MMEngine knows.
    """
    warnings = []
    for key in options:
        node: Any = cfg.to_dict()
        *_, last = parts = key.split(".")
        for part in parts[:-1]:
            node = node.get(part) if isinstance(node, dict) else None
        if parts[0] not in cfg and parts[0] not in _RUNNER_KEYS:
            raise ValueError(
                f"--cfg-options {key}: the config has no `{parts[0]}`"
                + _suggestion(parts[0], [*cfg, *_RUNNER_KEYS])
            )
        # What takes arguments is checked by `check_config`.
        if isinstance(node, dict) and len(parts) > 1 and "type" not in node and last not in node:
            place = ".".join(parts[:-1])
            warnings.append(
                f"--cfg-options {key}: `{place}` has no `{last}` in the config"
                f"{_suggestion(last, node)}; it is added"
            )
    return warnings


def check_config(cfg: Config, loops: Iterable[str]) -> None:
    """Check the values of a config on which a loop would fail later, or run without effect.

    Args:
        cfg: The final config.
        loops: Which of ``train``, ``val`` and ``test`` will run.

    Raises:
        ValueError: If something is wrong; names each setting, its value and what it must be.
    """
    loops = list(loops)
    problems: list[str] = []
    for loop in loops:
        if cfg.get(f"{loop}_dataloader") is not None:
            problems += _loader_problems(f"{loop}_dataloader", cfg[f"{loop}_dataloader"])
    if "train" in loops:
        problems += _training_problems(cfg)
    load_from = cfg.get("load_from")
    if isinstance(load_from, str) and "://" not in load_from and not Path(load_from).is_file():
        problems.append(f"load_from={load_from!r}: this file does not exist")
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope")):
        problems += _argument_problems(cfg, loops)
    _raise_if_any(cfg, problems)


def check_evaluators(cfg: Config, loops: Iterable[str]) -> None:
    """Check the arguments of metrics, and that the one that chooses the best checkpoint is there.

    Args:
        cfg: The final config, its files there.
        loops: Which of ``train``, ``val`` and ``test`` will run.

    Raises:
        ValueError: If something is wrong; names each setting, its value and what it must be.
    """
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope")):
        _raise_if_any(cfg, list(_evaluator_problems(cfg, list(loops))))


def _raise_if_any(cfg: Config, problems: Sequence[str]) -> None:
    if problems:
        name = cfg.filename or "the config"
        raise ValueError("\n".join([f"{name} has settings that cannot work:", *problems]))


def _loader_problems(place: str, loader: Mapping[str, Any]) -> Iterator[str]:
    sizes = {"num_workers": 0} if loader.get("batch_sampler") else {"batch_size": 1}
    for name, least in (sizes | {"num_workers": 0}).items():
        value = loader.get(name, least)
        if not _is_whole(value, least):
            yield _must(f"{place}.{name}", f"a whole number of at least {least}", value)
    for name in ("drop_last", "persistent_workers", "pin_memory"):
        if not isinstance(loader.get(name, False), bool):
            yield _must(f"{place}.{name}", "True or False", loader[name])
    prefetch = loader.get("prefetch_factor")
    if prefetch is not None and not _is_whole(prefetch, 1):
        yield _must(f"{place}.prefetch_factor", "a positive whole number or None", prefetch)
    dataset = loader.get("dataset")
    if not isinstance(dataset, Mapping):
        yield _must(f"{place}.dataset", "a dictionary", dataset)
        return
    for name in ("store", "images", "pairs", "refined", "objects", "image_root"):
        value = dataset.get(name)
        if value is not None and not isinstance(value, str):
            yield _must(f"{place}.dataset.{name}", "a path; write ./NAME if it is a number", value)


def _training_problems(cfg: Config) -> Iterator[str]:
    if cfg.get("train_dataloader") is None:
        yield "train_dataloader is missing: there is nothing to train on"
    loop = cfg.get("train_cfg") or {}
    length = "max_iters" if "max_iters" in loop else "max_epochs"
    longest = loop.get(length)
    if not _is_whole(longest, 1):
        yield _must(f"train_cfg.{length}", "a positive whole number", longest)
    interval = loop.get("val_interval", 1)
    if not _is_number(interval) or interval <= 0:
        yield _must("train_cfg.val_interval", "a positive number", interval)
    begin = loop.get("val_begin", 1)
    if not _is_whole(begin, 0) or (_is_whole(longest, 1) and begin > longest):
        yield _must("train_cfg.val_begin", f"a whole number from 0 to {length}={longest}", begin)
    wrapper = cfg.get("optim_wrapper") or {}
    if not isinstance(wrapper.get("optimizer"), Mapping):
        yield _must("optim_wrapper.optimizer", "a dictionary", wrapper.get("optimizer"))
        return
    rate = wrapper["optimizer"].get("lr", 1.0)
    if not _is_number(rate) or not 0 < rate < math.inf:
        yield _must("optim_wrapper.optimizer.lr", "a positive number", rate)
    steps = wrapper.get("accumulative_counts", 1)
    if not _is_whole(steps, 1):
        yield _must("optim_wrapper.accumulative_counts", "a positive whole number", steps)
    base = (cfg.get("auto_scale_lr") or {}).get("base_batch_size", 1)
    if not _is_whole(base, 1):
        yield _must("auto_scale_lr.base_batch_size", "a positive whole number", base)
    schedulers = cfg.get("param_scheduler")
    for place, part in _listed("param_scheduler", [] if schedulers is None else schedulers):
        if not isinstance(part, Mapping):
            yield _must(place, "a dictionary", part)
        elif "warmup" in part and not _is_whole(part["warmup"], 1):
            yield _must(f"{place}.warmup", "a positive whole number", part["warmup"])


def _evaluator_problems(cfg: Config, loops: Sequence[str]) -> Iterator[str]:
    for loop in {"val", "test"} & set(loops):
        if cfg.get(f"{loop}_dataloader") is None or cfg.get(f"{loop}_evaluator") is None:
            continue
        for place, part in _listed(f"{loop}_evaluator", cfg[f"{loop}_evaluator"]):
            try:
                METRICS.build(part)
            except (OSError, ValueError) as error:
                yield f"{place}: {error}"
    hook = (cfg.get("default_hooks") or {}).get("checkpoint") or {}
    evaluator = cfg.get("val_evaluator")
    best = hook.get("save_best")
    if "train" not in loops or not isinstance(evaluator, Mapping) or not isinstance(best, str):
        return
    scorers, name = evaluator.get("scorers"), best.rpartition("/")[2]
    wanted = "BLEU" if name.startswith("BLEU-") else name.removesuffix("-D")
    if evaluator["type"].endswith("CaptionMetric") and scorers and wanted not in scorers:
        yield (
            f"default_hooks.checkpoint.save_best={best!r}: val_evaluator.scorers={list(scorers)} "
            f"does not compute it; add {wanted}"
        )


def _argument_problems(cfg: Config, loops: Sequence[str]) -> Iterator[str]:
    for place, registry, part in _parts(cfg, loops):
        section = place.split(".")[0]
        kind = part.get("type", _DEFAULT_TYPES.get(place))
        found = kind
        if isinstance(kind, str):
            with registry.switch_scope_and_registry(part.get("_scope_")) as scoped:
                found = scoped.get(kind)
        if found is None:
            if not place.startswith("model."):  # a part of a model may be in another registry
                close = _suggestion(kind, _names(registry))
                yield f"{place}.type={kind!r} is not registered{close}"
            continue
        accepted = accepted_arguments(found)
        if accepted is None:
            continue
        known = accepted | {"type", "_scope_"} | _TAKEN_BY_MMENGINE.get(section, set())
        for key in part:
            if key not in known:
                yield (
                    f"{place}.{key}={part[key]!r}: {getattr(found, '__name__', kind)} has no such "
                    f"argument{_suggestion(key, known)}"
                )


def _parts(cfg: Config, loops: Sequence[str]) -> Iterator[tuple[str, Registry, Mapping[str, Any]]]:
    """Each part of a config that a class is built from."""
    if cfg.get("model"):
        yield from _nested("model", MODELS, cfg.model)
    for loop in loops:
        loader = cfg.get(f"{loop}_dataloader") or {}
        for key, registry in (("dataset", DATASETS), ("sampler", DATA_SAMPLERS)):
            if isinstance(loader.get(key), Mapping):
                yield f"{loop}_dataloader.{key}", registry, loader[key]
        if loop != "train" and loader and cfg.get(f"{loop}_evaluator"):
            for place, part in _listed(f"{loop}_evaluator", cfg[f"{loop}_evaluator"]):
                yield place, METRICS, part
    if "train" not in loops:
        return
    for key, registry in (("train_cfg", LOOPS), ("optim_wrapper", OPTIM_WRAPPERS)):
        if isinstance(cfg.get(key), Mapping):
            yield key, registry, cfg[key]
    optimizer = (cfg.get("optim_wrapper") or {}).get("optimizer")
    if isinstance(optimizer, Mapping):
        yield "optim_wrapper.optimizer", OPTIMIZERS, optimizer
    for place, part in _listed("param_scheduler", cfg.get("param_scheduler") or []):
        if isinstance(part, Mapping):
            yield place, PARAM_SCHEDULERS, part
    for name, part in (cfg.get("default_hooks") or {}).items():
        if isinstance(part, Mapping):
            yield f"default_hooks.{name}", HOOKS, part
    for place, part in _listed("custom_hooks", cfg.get("custom_hooks") or []):
        if isinstance(part, Mapping):
            yield place, HOOKS, part


def _nested(
    place: str, registry: Registry, part: Mapping[str, Any]
) -> Iterator[tuple[str, Registry, Mapping[str, Any]]]:
    if "type" in part:
        yield place, registry, part
    for key, value in part.items():
        if isinstance(value, Mapping):
            yield from _nested(f"{place}.{key}", registry, value)


def _listed(place: str, value: Any) -> list[tuple[str, Any]]:
    """The dictionaries of a setting that is one or a list of them, each with its key."""
    if isinstance(value, (list, tuple)):
        return [(f"{place}.{index}", part) for index, part in enumerate(value)]
    return [(place, value)]


def accepted_arguments(builder: Callable) -> set[str] | None:
    """Return the names of the arguments that a class or function takes; None for any.

    ``**kwargs`` of a class stand for the arguments of its base classes.
    """
    constructors: list[Any] = [builder]
    if inspect.isclass(builder):
        constructors = [
            vars(base)["__init__"] for base in builder.__mro__ if "__init__" in vars(base)
        ]
    names: set[str] = set()
    for constructor in constructors:
        try:
            parameters = inspect.signature(constructor).parameters
        except (TypeError, ValueError):  # written in C
            return None
        names |= parameters.keys()
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values()):
            return names
    return None


def _names(registry: Registry) -> list[str]:
    """The names of everything in a registry and in those of the packages that extend it."""
    names = list(registry.module_dict)
    for child in registry.children.values():
        names += [f"{child.scope}.{name}" for name in child.module_dict]
    return names


def _suggestion(name: Any, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(name), [k for k in known if k != "self"], 1)
    return f"; did you mean `{close[0]}`?" if close else ""


def _must(key: str, what: str, value: Any) -> str:
    return f"{key} must be {what}, got {value!r}"


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
