"""Learning rate schedule of "Attention Is All You Need", used by the released PCM-Net."""

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import INF, OptimizerType, _ParamScheduler

from pcm_plugin.errors import UserError
from pcm_plugin.registry import PARAM_SCHEDULERS


def noam_factor(step: int, embed_dims: int, warmup: int) -> float:
    """Compute the factor of the learning rate (Vaswani et al. 2017, Eq. 3).

    The factor rises linearly during the warm-up, then decays with the square root of the step.

    Args:
        step: Optimizer step, from 1.
        embed_dims: Width D of the model.
        warmup: Number of steps until the maximum.

    Returns:
        ``D^-0.5 * min(step^-0.5, step * warmup^-1.5)``.
    """
    return embed_dims**-0.5 * min(step**-0.5, step * warmup**-1.5)


@PARAM_SCHEDULERS.register_module()
class NoamLR(LRSchedulerMixin, _ParamScheduler):
    """Noam schedule: the optimizer's ``lr`` times :func:`noam_factor`.

    Use ``lr=1.0`` in the optimizer for the published schedule. ``auto_scale_lr`` scales this factor
    and thereby the whole curve.

    Args:
        optimizer: Optimizer or optimizer wrapper.
        embed_dims: Width D of the model. Defaults to 512 (released code).
        warmup: Number of steps until the maximum. Defaults to 10,000 (released code).
        begin: First iteration of the schedule. Defaults to 0.
        end: Last iteration of the schedule. Defaults to infinity.
        last_step: See MMEngine's schedulers. Defaults to -1.
        by_epoch: Must be set to False. The schedule counts iterations, but MMEngine's runner
            assumes epochs if a schedule does not set ``by_epoch``.
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
            raise UserError("`by_epoch` of NoamLR must be False, got True: it counts iterations")
        for name, value in (("embed_dims", embed_dims), ("warmup", warmup)):
            if value <= 0:
                raise UserError(f"`{name}` of NoamLR must be positive, got {value}")
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
