"""Commands of ``pcm`` that another command runs as processes."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from pcm_plugin.packaged_files import CONFIGS

_TORCHRUN = ["--standalone", "--nproc_per_node"]


def process_arguments(command: Sequence[object], processes: int = 1) -> list[str]:
    """Return the arguments of the process that runs a command.

    Args:
        command: Name of the command and its arguments.
        processes: Number of processes that share the work. Defaults to 1.
    """
    launch = ["-m", "torch.distributed.run", *_TORCHRUN, str(processes)] if processes > 1 else []
    return [sys.executable, *launch, "-m", "pcm_plugin", *map(str, command)]


def shell_command(command: Sequence[object], processes: int = 1) -> str:
    """Return a command as it is typed in a shell.

    The absolute path of a config of this package is replaced by its name.

    Args:
        command: Name of the command and its arguments.
        processes: Number of processes that share the work. Defaults to 1.
    """
    launch = ["torchrun", *_TORCHRUN, str(processes), "-m", "pcm_plugin"]
    return shlex.join([*(launch if processes > 1 else ["pcm"]), *map(_shorten, command)])


def _shorten(word: object) -> str:
    """Replace the absolute path of a config of this package by the name that commands accept."""
    path = Path(str(word))
    is_config = path.is_absolute() and path.is_relative_to(CONFIGS) and path.suffix == ".py"
    return path.relative_to(CONFIGS).as_posix() if is_config else str(word)
