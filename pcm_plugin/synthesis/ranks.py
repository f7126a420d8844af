"""Ranks of processes that share work."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Rank:
    """Rank of one of the processes that share the shards of a stage.

    Attributes:
        index: Rank of the process, from 0.
        count: Number of processes.
        local: Rank of the process on its machine.
    """

    index: int = 0
    count: int = 1
    local: int = 0

    @classmethod
    def from_environment(cls) -> "Rank":
        """Read the variables of torchrun or srun; without them, the process is the only one."""
        for names in (
            ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
            ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
        ):
            if all(name in os.environ for name in names):
                return cls(*(int(os.environ[name]) for name in names))
        return cls()

    def device(self) -> str:
        """Return the GPU of this process, or the CPU if there is no GPU."""
        import torch

        if torch.cuda.is_available():
            return f"cuda:{self.local % torch.cuda.device_count()}"
        return "cpu"


@contextlib.contextmanager
def deterministic_cpu_threads(device: str) -> Iterator[None]:
    """Use one thread on the CPU, since sums of several threads differ in their last bits.

    torchrun sets one thread for each of several processes, and a single process uses all cores, so
    their results would differ otherwise. Start several processes to use several cores.
    """
    import torch

    threads = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
