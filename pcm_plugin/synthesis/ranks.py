"""Which part of the work this process does."""

import os
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Rank:
    """One of several processes that share the shards of a stage, whole shards each.

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
        """Read what torchrun sets; alone if it set nothing."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        return cls(*(int(os.environ.get(n, d)) for n, d in zip(names, "010", strict=True)))

    def owns(self, shard: int) -> bool:
        """Whether a shard is this process's; in turn, so that restarts agree."""
        return shard % self.count == self.index

    def device(self) -> str:
        """This process's GPU, or the CPU where there is none."""
        if torch.cuda.is_available():
            return f"cuda:{self.local % torch.cuda.device_count()}"
        return "cpu"

    def label(self) -> str:
        """A suffix for progress bars: nothing for a process alone."""
        return f" [{self.index + 1}/{self.count}]" if self.count > 1 else ""
