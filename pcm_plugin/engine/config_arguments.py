"""Check the arguments in a config against the signatures of its classes."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
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
    Registry,
)

from pcm_plugin.models.decoding.config import DecodingConfig

_DEFAULT_TYPES = {"optim_wrapper": "OptimWrapper", "train_cfg": "EpochBasedTrainLoop"}
# Keys that MMEngine removes from a part before it builds the part.
_TAKEN_BY_MMENGINE = {
    "model": {"init_cfg"},
    "optim_wrapper": {"constructor", "paramwise_cfg"},
    "param_scheduler": {"convert_to_iter_based"},
    "train_cfg": {"by_epoch"},
    "default_hooks": {"priority"},
    "custom_hooks": {"priority"},
}


def argument_problems(cfg: Config, loops: Sequence[str]) -> Iterator[str]:
    """Find unknown classes, and settings that are not arguments of their class.

    Args:
        cfg: The final config. Its default scope is the current one.
        loops: Loops that will run: ``train``, ``val`` and ``test``.

    Yields:
        One line per problem.
    """
    for place, registry, part in _parts(cfg, loops):
        section = place.split(".")[0]
        kind = part.get("type", _DEFAULT_TYPES.get(place))
        found = kind
        if isinstance(kind, str):
            with registry.switch_scope_and_registry(part.get("_scope_")) as scoped:
                found = scoped.get(kind)
        if found is None:
            if not place.startswith("model."):  # a part of a model may be in another registry
                close = suggestion(kind, _names(registry))
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
                    f"argument{suggestion(key, known)}"
                )
    yield from _decoding_problems(cfg.get("model") or {})


def _decoding_problems(model: Mapping[str, Any]) -> Iterator[str]:
    """Find settings of ``model.decoding`` that captioners of this package do not have."""
    decoding = model.get("decoding")
    if not isinstance(decoding, Mapping) or not str(model.get("type")).startswith("pcm_plugin."):
        return
    known = {field.name for field in fields(DecodingConfig)}
    for key, value in decoding.items():
        if key not in known:
            close = suggestion(key, known)
            yield f"model.decoding.{key}={value!r}: DecodingConfig has no such argument{close}"


def _parts(cfg: Config, loops: Sequence[str]) -> Iterator[tuple[str, Registry, Mapping[str, Any]]]:
    """Yield the parts of a config that a class is built from: key, registry, settings."""
    if cfg.get("model"):
        yield from _nested("model", MODELS, cfg.model)
    for loop in loops:
        loader = cfg.get(f"{loop}_dataloader") or {}
        for key, registry in (("dataset", DATASETS), ("sampler", DATA_SAMPLERS)):
            if isinstance(loader.get(key), Mapping):
                yield f"{loop}_dataloader.{key}", registry, loader[key]
        if loop != "train" and loader and cfg.get(f"{loop}_evaluator"):
            for place, part in listed(f"{loop}_evaluator", cfg[f"{loop}_evaluator"]):
                yield place, METRICS, part
    if "train" not in loops:
        return
    for key, registry in (("train_cfg", LOOPS), ("optim_wrapper", OPTIM_WRAPPERS)):
        if isinstance(cfg.get(key), Mapping):
            yield key, registry, cfg[key]
    optimizer = (cfg.get("optim_wrapper") or {}).get("optimizer")
    if isinstance(optimizer, Mapping):
        yield "optim_wrapper.optimizer", OPTIMIZERS, optimizer
    for place, part in listed("param_scheduler", cfg.get("param_scheduler") or []):
        if isinstance(part, Mapping):
            yield place, PARAM_SCHEDULERS, part
    for name, part in (cfg.get("default_hooks") or {}).items():
        if isinstance(part, Mapping):
            yield f"default_hooks.{name}", HOOKS, part
    for place, part in listed("custom_hooks", cfg.get("custom_hooks") or []):
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


def listed(place: str, value: Any) -> list[tuple[str, Any]]:
    """Return the parts of a setting with their keys; the setting is one part or a list."""
    if isinstance(value, (list, tuple)):
        return [(f"{place}.{index}", part) for index, part in enumerate(value)]
    return [(place, value)]


def accepted_arguments(builder: Callable) -> set[str] | None:
    """Return the argument names of a class or function; None if any name is accepted.

    ``**kwargs`` of a class stands for the arguments of its base classes.
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
        except (TypeError, ValueError):  # implemented in C
            return None
        names |= parameters.keys()
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values()):
            return names
    return None


def _names(registry: Registry) -> list[str]:
    """Return the names in a registry and its child registries."""
    names = list(registry.module_dict)
    for child in registry.children.values():
        names += [f"{child.scope}.{name}" for name in child.module_dict]
    return names


def suggestion(name: Any, known: Iterable[str]) -> str:
    """Return the end of an error message that suggests a similar name, ``''`` if none is."""
    close = difflib.get_close_matches(str(name), [k for k in known if k != "self"], 1)
    return f"; did you mean `{close[0]}`?" if close else ""
