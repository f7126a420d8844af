"""Configs and assets of this package, in a checkout and in an installed wheel."""

import os
from pathlib import Path

from pcm_plugin.errors import MissingFileError

PACKAGE = Path(__file__).parent
"""Folder of this package."""


def _find_configs() -> Path:
    # A wheel contains the configs where openmim looks for them. In a checkout this is a link to the
    # folder of the configs if the package is installed, and missing otherwise.
    packaged = PACKAGE / ".mim" / "configs"
    return packaged.resolve() if packaged.is_dir() else PACKAGE.parent / "configs"


CONFIGS = _find_configs()
"""Folder of the configs."""


def config_file(name: str) -> str:
    """Return the absolute path of a config of this package.

    A config of another project inherits one of this package by
    ``_base_ = __import__("pcm_plugin").config_file("pcm_coco.py")``.

    Args:
        name: Path below ``configs``, such as ``'pcm_coco.py'`` or ``'syntic/syntic_coco.py'``.

    Raises:
        MissingFileError: If the config does not exist.
    """
    path = CONFIGS / name
    if not path.is_file():
        raise MissingFileError(f"pcm_plugin has no config {name} in {CONFIGS}")
    return path.as_posix()


def packaged_file(name: str) -> str:
    """Return the path of a file or folder of this package.

    Args:
        name: Path below the package, such as ``'toyworld/assets/clip'``.
    """
    return shown_path(PACKAGE / name)


def shown_path(path: Path) -> str:
    """Return a path relative to the current folder if it is inside, otherwise an absolute path.

    Files that are written in a checkout therefore do not depend on its location.
    """
    path = Path(os.path.abspath(path))
    here = Path.cwd()
    return (path.relative_to(here) if path.is_relative_to(here) else path).as_posix()
