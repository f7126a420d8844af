"""Modules in the config of a model, and the input files that they declare."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pcm_plugin.formats.required_file import ReadsFiles, RequiredFile
from pcm_plugin.registry import MODELS


class ConfigModule(NamedTuple):
    """Config of a registered class.

    Attributes:
        key: Its dotted key, e.g. ``'model.neck'``.
        cls: The class.
        settings: Its constructor arguments and ``type``.
    """

    key: str
    cls: type
    settings: Mapping[str, Any]


def iter_modules(settings: Mapping[str, Any], key: str = "model") -> Iterator[ConfigModule]:
    """Iterate over the modules in a config, outer ones first.

    Functions and types that are not registered are skipped.

    Args:
        settings: Config of a model.
        key: Its key in the whole config. Defaults to ``'model'``.

    Yields:
        The config and class of each module.
    """
    kind = settings.get("type")
    if isinstance(kind, str):
        with MODELS.switch_scope_and_registry(settings.get("_scope_")) as registry:
            kind = registry.get(kind)
    if isinstance(kind, type):
        yield ConfigModule(key, kind, settings)
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from iter_modules(value, f"{key}.{name}")


def required_files(settings: Mapping[str, Any], key: str = "model") -> list[RequiredFile]:
    """List the input files that the modules in a config declare.

    Args:
        settings: Config of a model.
        key: Its key in the whole config. Defaults to ``'model'``.

    Returns:
        One record per file, in the order of the config. Arguments that are missing or None are
        left out.
    """
    return [
        RequiredFile(f"{module.key}.{name}", kind, str(module.settings[name]))
        for module in iter_modules(settings, key)
        if issubclass(module.cls, ReadsFiles)
        for name, kind in module.cls.input_files.items()
        if module.settings.get(name) is not None
    ]
