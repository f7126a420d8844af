"""Say what is missing before anything is built."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmengine.config import Config


class MissingInputError(FileNotFoundError):
    """Files that a config names are not there; the message lists all of them."""


def check_inputs(cfg: Config, loops: Iterable[str]) -> None:
    """Check every file that the config lists under ``prerequisites``.

    Each entry of that list is ``dict(key=..., command=...)``: ``key`` is where the final config
    holds the path (so that ``--cfg-options`` and leaf configs are honoured), such as
    ``train_dataloader.dataset.store``, and ``command`` the line that makes the file, in which
    ``{path}`` stands for the path and ``{name}`` or ``{name[key]}`` for what the config says.

    Args:
        cfg: The final config.
        loops: Which of ``train``, ``val`` and ``test`` will run: keys that start with the name of
            another are not checked.

    A path that is None, or inside of a part that is None, is not wanted and not checked.

    Raises:
        MissingInputError: If a file is missing; names every one and the commands that make them.
        KeyError: If an entry's ``key`` is not in the config.
    """
    skipped = tuple(f"{loop}_" for loop in {"train", "val", "test"} - set(loops))
    settings = cfg.to_dict()
    makers: dict[str, list[str]] = {}
    count = 0
    for entry in cfg.get("prerequisites", []):
        if entry["key"].startswith(skipped):
            continue
        for path in _paths(cfg, entry["key"]):
            if not Path(path).exists():
                command = entry["command"].format(**settings, path=path)
                makers.setdefault(command, []).append(f"{path}  ({entry['key']})")
                count += 1
    if makers:
        files = "1 file that does" if count == 1 else f"{count} files that do"
        lines = [f"{cfg.filename or 'the config'} needs {files} not exist."]
        for command, paths in makers.items():
            lines += [f"  missing: {path}" for path in paths]
            lines += [f"  made by: {command}", ""]
        raise MissingInputError("\n".join(lines).rstrip())


def _paths(cfg: Config, key: str) -> list[str]:
    value: Any = cfg
    for part in key.split("."):
        if value is None:
            return []
        if part not in value:
            raise KeyError(f"prerequisites name {key!r}, but the config has no {part!r} there")
        value = value[part]
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)
