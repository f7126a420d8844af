"""Registered classes in a config, and the input files that they declare."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, MODELS, DefaultScope, Registry

from pcm_plugin.engine.config_arguments import listed
from pcm_plugin.errors import UserError
from pcm_plugin.formats.required_file import FileKind, ReadsFiles, RequiredFile

LOOPS = ("train", "val", "test")


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


class FileArgument(NamedTuple):
    """Setting of a config that names an input file.

    Attributes:
        key: Its dotted key, e.g. ``'model.neck.concepts'``.
        kind: Kind of the file.
        path: Path of the file, None for no file.
    """

    key: str
    kind: FileKind
    path: str | None


def iter_modules(
    settings: Mapping[str, Any], key: str = "model", registry: Registry = MODELS
) -> Iterator[ConfigModule]:
    """Iterate over the modules in a config, outer ones first.

    Functions and types that are not registered are skipped.

    Args:
        settings: Config of a model, a dataset or a metric.
        key: Its key in the whole config. Defaults to ``'model'``.
        registry: Registry of its type. Defaults to that of models.

    Yields:
        The config and class of each module.
    """
    kind = settings.get("type")
    if isinstance(kind, str):
        with registry.switch_scope_and_registry(settings.get("_scope_")) as scoped:
            kind = scoped.get(kind)
    if isinstance(kind, type):
        yield ConfigModule(key, kind, settings)
    for name, value in settings.items():
        for place, part in listed(f"{key}.{name}", value):
            if isinstance(part, Mapping):
                yield from iter_modules(part, place, registry)


def file_arguments(cfg: Config, loops: Iterable[str] = LOOPS) -> Iterator[FileArgument]:
    """Iterate over the settings that name input files of the model, the datasets and the metrics.

    They are declared by the classes (:class:`~pcm_plugin.formats.required_file.ReadsFiles`). The
    config may add files of other classes as ``required_files``, a list of
    ``dict(key='model.tokenizer.name_or_path', kind='TOKENIZER')``.

    Args:
        cfg: The final config.
        loops: Loops whose datasets and metrics are included: ``train``, ``val`` and ``test``.

    Yields:
        One record per setting, in the order of the config.

    Raises:
        UserError: If an entry of ``required_files`` has a key that the config does not have.
    """
    parts: list[tuple[str, Any, Registry]] = [("model", cfg.get("model"), MODELS)]
    for loop in loops:
        loader = cfg.get(f"{loop}_dataloader")
        if loader is None:
            continue
        parts.append((f"{loop}_dataloader.dataset", loader.get("dataset"), DATASETS))
        if loop != "train":
            for place, part in listed(f"{loop}_evaluator", cfg.get(f"{loop}_evaluator")):
                parts.append((place, part, METRICS))
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope")):
        for place, part, registry in parts:
            if not isinstance(part, Mapping):
                continue
            for module in iter_modules(part, place, registry):
                if issubclass(module.cls, ReadsFiles):
                    for name, kind in module.cls.input_files.items():
                        if name in module.settings:
                            yield _argument(f"{module.key}.{name}", kind, module.settings[name])
    for entry in cfg.get("required_files", []):
        yield _argument(entry["key"], FileKind[entry["kind"]], _setting(cfg, entry["key"]))


def list_input_files(cfg: Config, loops: Iterable[str] = LOOPS) -> list[RequiredFile]:
    """List the input files that a config names.

    Args:
        cfg: The final config.
        loops: See :func:`file_arguments`.

    Raises:
        UserError: See :func:`file_arguments`.
    """
    return [
        RequiredFile(key, kind, path)
        for key, kind, path in file_arguments(cfg, loops)
        if path is not None
    ]


def _argument(key: str, kind: FileKind, value: Any) -> FileArgument:
    return FileArgument(key, kind, None if value is None else str(value))


def _setting(cfg: Config, key: str) -> Any:
    value: Any = cfg
    for part in key.split("."):
        if value is None or part not in value:
            raise UserError(f"`required_files` names {key!r}, but the config has no {part!r} there")
        value = value[part]
    return value
