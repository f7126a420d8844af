"""Random numbers that only depend on seed, rank and iteration."""

import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from pcm_plugin.registry import HOOKS


def seed_everything(*words: int) -> None:
    """Seed torch (all devices), NumPy and Python from a tuple of non-negative integers.

    Different tuples give independent streams, unlike sums of seeds.
    """
    state = np.random.SeedSequence(words).generate_state(2, np.uint32)
    torch.manual_seed(int(state.view(np.uint64)[0]))
    np.random.seed(int(state[0]))
    random.seed(int(state[1]))


@HOOKS.register_module()
class SeedEveryIterationHook(Hook):
    """Seed each training iteration from (run seed, rank, iteration).

    A resumed run draws the same dropout masks and noise as an uninterrupted one, without random
    states in the checkpoint and on any number of devices. MMEngine's sampler already draws the
    order of the samples from (run seed, epoch). The hook does not affect random transforms in data
    loader workers; they must depend on the index of the sample.
    """

    priority = "VERY_HIGH"

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed the random number generators for this iteration."""
        seed_everything(runner.seed, get_rank(), runner.iter)

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed for random numbers before the first iteration, such as the seeds of workers."""
        seed_everything(runner.seed, get_rank(), runner.iter)
