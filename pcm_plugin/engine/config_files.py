"""Find and read configs, those of this package also by name."""

import difflib
import os
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.packaged_files import CONFIGS, shown_path

if TYPE_CHECKING:
    from mmengine.config import Config

_PREFIX = "pcm_plugin::"
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
    configs = {path.stem: Path(shown_path(path)) for path in files}
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
        close = difflib.get_close_matches(name, configs)
        hint = f": did you mean {' or '.join(close)}?" if close else ""
        raise MissingFileError(f"no config in {CONFIGS} is called {name}{hint}")
    return configs[name]


def resolve_config(path: str | os.PathLike) -> Path:
    """Return the file that a command line or a caller of the API names.

    Args:
        path: A file, or a config of this package: ``'pcm_coco.py'`` or ``'pcm_coco'``,
            ``'syntic/syntic_coco.py'``, ``'configs/syntic/syntic_coco.py'`` or
            ``'pcm_plugin::syntic/syntic_coco.py'``. A file in the current folder comes first.

    Raises:
        MissingFileError: If there is no such file.
    """
    if Path(path).is_file():
        return Path(path)
    name = Path(str(path).removeprefix(_PREFIX))
    inside = CONFIGS / (name.relative_to("configs") if name.is_relative_to("configs") else name)
    if not name.is_absolute() and inside.is_file():
        return Path(shown_path(inside))
    configs = list_configs()
    is_module = name.suffix in ("", ".py")
    if name.name == str(name) and is_module and name.stem in configs:
        return configs[name.stem]
    close = difflib.get_close_matches(name.stem, configs) if is_module else []
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise MissingFileError(
        f"config {path} does not exist: {hint}pass a file, or the name of a config in {CONFIGS}"
    )


def read_config_file(path: str | os.PathLike) -> "Config":
    """Read a config file.

    Args:
        path: The file, or a config of this package; see :func:`resolve_config`.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If it cannot be read, for example because it imports a module that is not
            installed, has a base that does not exist, or is not a config at all.
    """
    # Imported here, since it is slow: the help of some commands lists the configs.
    from mmengine.config import Config
    from yaml import YAMLError

    file = resolve_config(path)
    try:
        return Config.fromfile(file)
    except UserError:
        raise
    except (ImportError, SyntaxError, OSError, UnicodeError, JSONDecodeError, YAMLError) as error:
        raise UserError(f"config {path} cannot be read: {error}") from error
