"""Configs and assets of this package, in a checkout and in an installed wheel."""

import os
from pathlib import Path

from pcm_plugin.errors import MissingFileError

_PACKAGE = Path(__file__).parent
_PREFIX = "pcm_plugin::"


def _find_configs() -> Path:
    # A wheel contains the configs where openmim looks for them. In a checkout this is a link to the
    # folder of the configs if the package is installed, and missing otherwise.
    packaged = _PACKAGE / ".mim" / "configs"
    return packaged.resolve() if packaged.is_dir() else _PACKAGE.parent / "configs"


CONFIGS = _find_configs()
"""Folder of the configs."""


def config_file(name: str) -> str:
    """Return the path of a config of this package.

    A config of another project inherits one of this package by
    ``_base_ = __import__("pcm_plugin").config_file("pcm_coco.py")``.

    Args:
        name: Path below ``configs``, such as ``'pcm_coco.py'`` or ``'syntic/syntic_coco.py'``.

    Raises:
        MissingFileError: If there is no such config.
    """
    path = CONFIGS / name
    if not path.is_file():
        raise MissingFileError(f"pcm_plugin has no config {name} in {CONFIGS}")
    return shown_path(path)


def resolve_config(config: str) -> str:
    """Return the path of a config from a command line.

    Args:
        config: A file, or a config of this package with the prefix ``pcm_plugin::``, such as
            ``'pcm_plugin::pcm_coco.py'``.

    Raises:
        MissingFileError: If this package has no such config.
    """
    return config_file(config.removeprefix(_PREFIX)) if config.startswith(_PREFIX) else config


def packaged_file(name: str) -> str:
    """Return the path of a file or folder of this package.

    Args:
        name: Path below the package, such as ``'toyworld/assets/clip'``.
    """
    return shown_path(_PACKAGE / name)


def shown_path(path: Path) -> str:
    """Return a path relative to the current folder if it lies below, and an absolute one otherwise.

    So what is written in a checkout does not depend on the location of the checkout.
    """
    path = Path(os.path.abspath(path))
    here = Path.cwd()
    return (path.relative_to(here) if path.is_relative_to(here) else path).as_posix()
