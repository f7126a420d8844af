"""Check the values of a config before anything is built or written."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import METRICS, DefaultScope

from pcm_plugin.engine.config_arguments import argument_problems, listed, suggestion
from pcm_plugin.engine.config_modules import LOOPS
from pcm_plugin.errors import UserError

# Keys at the top level of a config that the runner or the commands read.
_READ_KEYS = (
    *("model", "train_cfg", "train_dataloader", "val_dataloader", "test_dataloader"),
    *("optim_wrapper", "param_scheduler", "default_hooks", "log_level", "required_files", "clip"),
    "build_commands",
    *("activation_checkpointing", "compile", "data_preprocessor", "default_scope"),
    *("efficient_conv_bn_eval", "experiment_name", "find_unused_parameters", "load_from"),
    *("log_processor", "model_wrapper_cfg", "extra_datasets", "resume", "sync_bn", "visualizer"),
    *("vis_backends", "custom_hooks", "custom_imports", "auto_scale_lr", "randomness", "work_dir"),
    *("launcher", "test_evaluator", "val_evaluator", "test_cfg", "val_cfg", "env_cfg"),
)


def disable_worker_options(cfg: Config) -> None:
    """Remove options of data loader workers if ``num_workers=0``.

    PyTorch does not accept ``persistent_workers=True`` and ``prefetch_factor`` without workers.

    Args:
        cfg: The config, changed in place.
    """
    for loop in LOOPS:
        loader = cfg.get(f"{loop}_dataloader")
        if loader and loader.get("num_workers", 0) == 0:
            loader.persistent_workers = False
            loader.pop("prefetch_factor", None)


def check_options(cfg: Config, options: Mapping[str, Any]) -> list[str]:
    """Check that options change existing settings.

    Args:
        cfg: The config without the options.
        options: Values of ``--cfg-options`` by dotted key.

    Returns:
        Warnings about new keys in a dictionary without a type, and about keys that only the config
        file itself reads.

    Raises:
        UserError: If the first part of a key is neither in the config nor known to MMEngine.
    """
    warnings = []
    for key in options:
        node: Any = cfg.to_dict()
        *_, last = parts = key.split(".")
        for part in parts[:-1]:
            node = node.get(part) if isinstance(node, dict) else None
        if parts[0] not in cfg and parts[0] not in _READ_KEYS:
            raise UserError(
                f"--cfg-options {key}: the config has no `{parts[0]}`"
                + suggestion(parts[0], [*cfg, *_READ_KEYS])
            )
        if parts[0] not in _READ_KEYS:
            warnings.append(
                f"--cfg-options {key}: settings that the config derives from `{parts[0]}` do not "
                "change; set them directly"
            )
        # `check_config` checks the arguments of classes.
        place = ".".join(parts[:-1])
        takes_arguments = isinstance(node, dict) and ("type" in node or place == "model.decoding")
        if isinstance(node, dict) and place and not takes_arguments and last not in node:
            warnings.append(
                f"--cfg-options {key}: `{place}` has no `{last}` in the config"
                f"{suggestion(last, node)}; it is added"
            )
    return warnings


def check_config(cfg: Config, loops: Iterable[str]) -> None:
    """Check for values with which a loop would fail later or have no effect.

    Args:
        cfg: The final config.
        loops: Loops that will run: ``train``, ``val`` and ``test``.

    Raises:
        UserError: If a setting is invalid. The message lists all of them with their values and what
            they must be.
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
        problems += argument_problems(cfg, loops)
    _raise_if_any(cfg, problems)


def check_evaluators(cfg: Config, loops: Iterable[str]) -> None:
    """Check the arguments of metrics, and that the metric of ``save_best`` is computed.

    Args:
        cfg: The final config. Its input files exist.
        loops: Loops that will run: ``train``, ``val`` and ``test``.

    Raises:
        UserError: If a setting is invalid. The message lists all of them with their values and what
            they must be.
    """
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope")):
        _raise_if_any(cfg, list(_evaluator_problems(cfg, list(loops))))


def _raise_if_any(cfg: Config, problems: Sequence[str]) -> None:
    if problems:
        name = cfg.filename or "the config"
        raise UserError("\n".join([f"{name} has settings that cannot work:", *problems]))


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
    for name in ("store", "img_dir", "pairs", "refined_features", "object_labels", "data_prefix"):
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
    seed = (cfg.get("randomness") or {}).get("seed")
    if seed is not None and not _is_whole(seed, 0):
        yield _must("randomness.seed", "a whole number from 0 on, or None", seed)
    for name, hook in (cfg.get("default_hooks") or {}).items():
        if isinstance(hook, Mapping) and "epochs" in hook:
            epochs = hook["epochs"]
            if not _is_number(epochs) or not 0 < epochs < math.inf:
                yield _must(f"default_hooks.{name}.epochs", "a positive number", epochs)
    schedulers = cfg.get("param_scheduler")
    for place, part in listed("param_scheduler", [] if schedulers is None else schedulers):
        if not isinstance(part, Mapping):
            yield _must(place, "a dictionary", part)
        elif "warmup" in part and not _is_whole(part["warmup"], 1):
            yield _must(f"{place}.warmup", "a positive whole number", part["warmup"])


def _evaluator_problems(cfg: Config, loops: Sequence[str]) -> Iterator[str]:
    for loop in {"val", "test"} & set(loops):
        if cfg.get(f"{loop}_dataloader") is None or cfg.get(f"{loop}_evaluator") is None:
            continue
        for place, part in listed(f"{loop}_evaluator", cfg[f"{loop}_evaluator"]):
            try:
                METRICS.build(part)
            except (OSError, UserError) as error:
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


def _must(key: str, what: str, value: Any) -> str:
    return f"{key} must be {what}, got {value!r}"


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
