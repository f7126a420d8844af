"""Average of the weights: its time constant, and the values that it refuses."""

import math
from types import SimpleNamespace

import pytest
import torch

from pcm_plugin.engine import AverageWeightsHook


@pytest.mark.parametrize("iterations", [1, 5, 40])
@pytest.mark.parametrize("epochs", [1, 2.0])
def test_the_time_constant_is_a_number_of_epochs_of_any_length(iterations, epochs):
    model = torch.nn.Linear(1, 1, bias=False)
    runner = SimpleNamespace(model=model, train_dataloader=range(iterations), max_iters=100, iter=0)
    hook = AverageWeightsHook(epochs)
    hook.before_run(runner)
    hook.before_train(runner)
    torch.nn.init.zeros_(model.weight)
    hook.after_train_iter(runner, 0)
    torch.nn.init.ones_(model.weight)
    for index in range(int(epochs * iterations)):
        hook.after_train_iter(runner, index)
    hook.before_val_epoch(runner)
    assert model.weight.item() == pytest.approx(1 - math.exp(-1), abs=1e-5)


@pytest.mark.parametrize("epochs", [0, -1.0, math.nan, math.inf, "1", True, None])
def test_other_values_are_refused(epochs):
    with pytest.raises(ValueError, match=f"`epochs` of AverageWeightsHook.*got {epochs!r}"):
        AverageWeightsHook(epochs)
