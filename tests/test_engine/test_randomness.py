import random
from types import SimpleNamespace

import numpy as np
import torch

from pcm_plugin.engine.seed_hook import SeedEveryIterationHook


def draw(seed, iteration, before=0):
    torch.rand(before)
    runner = SimpleNamespace(seed=seed, iter=iteration)
    SeedEveryIterationHook().before_train_iter(runner, batch_idx=0)
    return torch.rand(4).tolist(), np.random.rand(), random.random()


def test_random_numbers_only_depend_on_seed_and_iteration():
    assert draw(1, 5) == draw(1, 5, before=100)
    # (1, 6) and (2, 5) have the same sum.
    assert len({str(draw(*key)) for key in ((1, 5), (1, 6), (2, 5), (5, 1))}) == 4


def test_ranks_have_different_random_numbers(monkeypatch):
    first = draw(1, 5)
    monkeypatch.setattr("pcm_plugin.engine.seed_hook.get_rank", lambda: 1)
    assert draw(1, 5) != first
