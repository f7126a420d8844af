"""Which of several processes this is."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Rank:
    """One of several processes that share the shards of a stage.

    Attributes:
        index: Number of this process, from 0.
        count: Number of processes.
        local: Number of this process on its machine.
    """

    index: int = 0
    count: int = 1
    local: int = 0

    @classmethod
    def from_environment(cls) -> "Rank":
        """Read what torchrun or SLURM's srun sets; alone if neither set anything."""
        for names in (
            ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
            ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
        ):
            if all(name in os.environ for name in names):
                return cls(*(int(os.environ[name]) for name in names))
        return cls()

    def device(self) -> str:
        """Return the GPU of this process, or the CPU if there is none."""
        if torch.cuda.is_available():
            return f"cuda:{self.local % torch.cuda.device_count()}"
        return "cpu"


@contextlib.contextmanager
def deterministic_cpu_threads(device: str) -> Iterator[None]:
    """On the CPU, work with one thread: sums of more would not be the same to the last bit.

    torchrun gives each of several processes one thread and a process alone all cores, so that
    their data would differ otherwise. Several processes use several cores.
    """
    threads = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
