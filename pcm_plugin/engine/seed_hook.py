"""Random numbers that depend on where the training is, not on how it got there."""

import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from pcm_plugin.registry import HOOKS


def seed_everything(*words: int) -> None:
    """Seed torch (every device), NumPy and Python from a tuple of non-negative integers.

    Tuples that differ in any place give unrelated streams, which sums of seeds do not.
    """
    state = np.random.SeedSequence(words).generate_state(2, np.uint32)
    torch.manual_seed(int(state.view(np.uint64)[0]))
    np.random.seed(int(state[0]))
    random.seed(int(state[1]))


@HOOKS.register_module()
class SeedEveryIterationHook(Hook):
    """Seed each training iteration from (run seed, rank, iteration).

    A resumed run draws the same dropout masks and noise as one that never stopped, with no random
    state in the checkpoint, on any number of devices. The order of the samples needs nothing from
    here: MMEngine's sampler draws it from (run seed, epoch). Random transforms in data loader
    workers are outside its reach; they must draw from the sample's index.
    """

    priority = "VERY_HIGH"

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed; see the class."""
        seed_everything(runner.seed, get_rank(), runner.iter)

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed what is drawn before the epoch's first iteration, such as the workers' seeds."""
        seed_everything(runner.seed, get_rank(), runner.iter)
