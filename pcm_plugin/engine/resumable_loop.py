"""Epoch loop that can be resumed from any checkpoint."""

import math
from collections.abc import Sequence

import torch
from mmengine.runner import EpochBasedTrainLoop

from pcm_plugin.registry import LOOPS


@LOOPS.register_module()
class ResumableTrainLoop(EpochBasedTrainLoop):
    """MMEngine's epoch loop, resumable from any checkpoint.

    There are two differences to the base class, which do not affect a run that is never resumed:

    - From a checkpoint in the middle of an epoch (``by_epoch=False``), training continues with the
      next batch. The base class would start the epoch again.
    - The checkpoint at the end of an epoch is written before the epoch is validated. A resumed run
      validates it first, so that the best checkpoint is the best of all epochs.

    The arguments are those of :class:`mmengine.runner.EpochBasedTrainLoop`. ``val_interval`` may be
    a fraction: with 2.5 the model is validated after epochs 3, 5, 8, 10 and so on, whenever another
    2.5 epochs are complete.
    """

    # Key in MMEngine's message hub, which is part of every checkpoint.
    _DONE = "batches_done_in_epoch"

    def run(self) -> torch.nn.Module:
        """Launch training.

        Returns:
            The trained model.
        """
        self.runner.call_hook("before_train")
        if self._epoch > 0 and self._batches_done == 0:
            self._validate_if_due()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._decide_current_val_interval()
            self._validate_if_due()
        self.runner.call_hook("after_train")
        return self.runner.model

    def run_epoch(self) -> None:
        """Train on the remaining batches of the current epoch."""
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        done = self._batches_done
        for index, data_batch in enumerate(self.dataloader):
            if index >= done:
                self.run_iter(index, data_batch)
        self._batches_done = 0
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Sequence[dict]) -> None:
        """Train on batch ``idx`` of the epoch."""
        self._batches_done = idx + 1
        super().run_iter(idx, data_batch)

    @property
    def _batches_done(self) -> int:
        return self.runner.message_hub.get_info(self._DONE, 0)

    @_batches_done.setter
    def _batches_done(self, value: int) -> None:
        self.runner.message_hub.update_info(self._DONE, value)

    def _validate_if_due(self) -> None:
        due = is_due(self._epoch, self.val_interval) or self._epoch == self._max_epochs
        if self.runner.val_loop is not None and self._epoch >= self.val_begin and due:
            self.runner.val_loop.run()


def is_due(epoch: int, interval: float) -> bool:
    """Return whether another ``interval`` epochs are complete after ``epoch`` epochs."""
    # The small constant absorbs rounding errors of intervals such as 5/3.
    return math.floor(epoch / interval + 1e-6) > math.floor((epoch - 1) / interval + 1e-6)
