"""Early stopping that a resumed run continues."""

import math
from typing import Any

from mmengine.hooks import EarlyStoppingHook
from mmengine.runner import Runner

from pcm_plugin.registry import HOOKS


@HOOKS.register_module()
class ResumableEarlyStoppingHook(EarlyStoppingHook):
    """MMEngine's early stopping hook, whose state is part of every checkpoint.

    MMEngine's hook forgets the best score and the number of validations without improvement when a
    run is interrupted, so that a resumed run stops later than an uninterrupted one. Here an equal
    score and an undefined one (NaN) count as validations without improvement.

    Args:
        **kwargs: Arguments of :class:`mmengine.hooks.EarlyStoppingHook` other than
            ``check_finite``.
    """

    # Keys in MMEngine's message hub.
    _BEST, _WAITED = "early_stopping_best", "early_stopping_waited"

    best_score: float
    wait_count: int

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(check_finite=False, **kwargs)

    def before_train(self, runner: Runner) -> None:
        """Restore the state of a resumed run."""
        self.best_score = runner.message_hub.get_info(self._BEST, self.best_score)
        self.wait_count = runner.message_hub.get_info(self._WAITED, self.wait_count)

    def _check_stop_condition(self, current_score: float) -> tuple[bool, str]:
        is_equal = current_score == self.best_score + self.min_delta
        if not (is_equal or math.isnan(current_score)):
            return super()._check_stop_condition(current_score)
        self.wait_count += 1
        reason = f"{self.monitor} did not improve in {self.wait_count} validations"
        return self.wait_count >= self.patience, reason

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Stop the training if the score has not improved for ``patience`` validations."""
        super().after_val_epoch(runner, metrics)
        runner.message_hub.update_info(self._BEST, self.best_score)
        runner.message_hub.update_info(self._WAITED, self.wait_count)
