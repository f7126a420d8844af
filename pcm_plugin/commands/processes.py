"""Commands of ``pcm`` that another command runs as processes."""

import shlex
import sys
from collections.abc import Sequence

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

    Args:
        command: Name of the command and its arguments.
        processes: Number of processes that share the work. Defaults to 1.
    """
    launch = ["torchrun", *_TORCHRUN, str(processes), "-m", "pcm_plugin"]
    return shlex.join([*(launch if processes > 1 else ["pcm"]), *map(str, command)])
