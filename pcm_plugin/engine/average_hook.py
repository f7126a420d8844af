"""Average of the weights with a time constant in epochs."""

import math

from mmengine.hooks import EMAHook
from mmengine.runner import Runner

from pcm_plugin.errors import UserError
from pcm_plugin.registry import HOOKS


@HOOKS.register_module()
class AverageWeightsHook(EMAHook):
    """MMEngine's exponential moving average of the weights, with a time constant in epochs.

    Validation and checkpoints use the average. The weight of an iteration decreases by the factor
    ``exp(-1 / (epochs * L))`` per iteration, where L is the length of the data loader of a process,
    so that the time constant is the same number of passes over the data for any batch size, number
    of processes and gradient accumulation.

    Args:
        epochs: Time constant in epochs, above 0.

    Raises:
        UserError: If ``epochs`` is not a positive number.
    """

    def __init__(self, epochs: float) -> None:
        is_number = isinstance(epochs, int | float) and not isinstance(epochs, bool)
        if not is_number or not 0 < epochs < math.inf:
            raise UserError(f"`epochs` of AverageWeightsHook must be above 0, got {epochs!r}")
        super().__init__()
        self.epochs = epochs

    def before_train(self, runner: Runner) -> None:
        """Compute the momentum from the length of an epoch in iterations."""
        super().before_train(runner)
        iterations = self.epochs * len(runner.train_dataloader)
        self.ema_model.momentum = -math.expm1(-1 / iterations)
