"""Paths of the repository's configs."""

import os
from pathlib import Path

from pcm_plugin.errors import MissingFileError

# Data and runs belong to the current folder, configs to the repository.
ROOT = Path(os.path.relpath(Path(__file__).parents[2]))
CONFIGS = ROOT / "configs"

_NOT_ENTRIES = {"_base_", "recipes"}


def list_configs() -> dict[str, Path]:
    """Return the configs that can be trained or tested, by name (the file's name without ``.py``).

    They are ``configs/*.py`` and ``configs/SYSTEM/*.py``.
    """
    files = [
        path
        for path in sorted(CONFIGS.rglob("*.py"))
        if not _NOT_ENTRIES.intersection(path.relative_to(CONFIGS).parts)
    ]
    configs = {path.stem: path for path in files}
    if len(configs) < len(files):
        raise ValueError(f"two files in {CONFIGS} have the same name")
    return configs


def find_config(name: str) -> Path:
    """Return the file of a config.

    Args:
        name: Its name, such as ``'syntic_coco'`` for ``configs/syntic/syntic_coco.py``.

    Raises:
        MissingFileError: If there is no such config.
    """
    configs = list_configs()
    if name not in configs:
        raise MissingFileError(f"no config in {CONFIGS} is called {name}")
    return configs[name]
