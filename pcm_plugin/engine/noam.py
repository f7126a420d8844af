"""The learning rate of "Attention Is All You Need", as the released PCM-Net was trained with it."""

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import INF, OptimizerType, _ParamScheduler

from pcm_plugin.errors import UserError
from pcm_plugin.registry import PARAM_SCHEDULERS


def noam_factor(step: int, embed_dims: int, warmup: int) -> float:
    """Vaswani et al. 2017, Eq. 3: linear warm-up, then decay with the root of the step.

    Args:
        step: The optimiser step, from 1.
        embed_dims: The width D of the model.
        warmup: Steps until the rate peaks.

    Returns:
        ``D^-0.5 * min(step^-0.5, step * warmup^-1.5)``.
    """
    return embed_dims**-0.5 * min(step**-0.5, step * warmup**-1.5)


@PARAM_SCHEDULERS.register_module()
class NoamLR(LRSchedulerMixin, _ParamScheduler):
    """Noam schedule: the optimiser's own ``lr`` multiplies :func:`noam_factor`.

    Write ``lr=1.0`` in the optimiser for the schedule as published; ``auto_scale_lr`` scales that
    multiplier and so the whole curve.

    Args:
        optimizer: The optimiser or optimiser wrapper.
        embed_dims: The width D of the model. Defaults to 512 (released code).
        warmup: Steps until the rate peaks. Defaults to 10,000 (released code).
        begin: The iteration at which the schedule starts. Defaults to 0.
        end: The iteration at which it stops. Defaults to never.
        last_step: See MMEngine's schedulers. Defaults to -1.
        by_epoch: Must be written, and be False: the schedule counts iterations, but MMEngine's
            runner takes a schedule that does not say so for one of epochs.
        verbose: Whether to print each value. Defaults to False.

    Raises:
        UserError: If ``by_epoch`` is not False, or ``embed_dims`` or ``warmup`` is not positive.
    """

    def __init__(
        self,
        optimizer: OptimizerType,
        embed_dims: int = 512,
        warmup: int = 10_000,
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        if by_epoch:
            raise UserError("NoamLR counts iterations, not epochs: write by_epoch=False")
        for name, value in (("embed_dims", embed_dims), ("warmup", warmup)):
            if value <= 0:
                raise UserError(f"NoamLR: {name} must be positive, got {value}")
        self.embed_dims = embed_dims
        self.warmup = warmup
        super().__init__(
            optimizer,
            begin=begin,
            end=end,
            last_step=last_step,
            by_epoch=by_epoch,
            verbose=verbose,
        )

    def _get_value(self) -> list[float]:
        factor = noam_factor(self.last_step + 1, self.embed_dims, self.warmup)
        return [base * factor for base in self.base_values]
