"""Replay parameter schedules without training."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.registry import OPTIMIZERS, PARAM_SCHEDULERS

from pcm_plugin.errors import UserError

# Arguments of schedulers that count iterations if `by_epoch` is False.
_ITERATION_COUNTS = ("begin", "end", "step_size", "T_max", "total_steps", "warmup")


class RunLength(NamedTuple):
    """Length of a training.

    Attributes:
        epoch_length: Number of iterations per epoch.
        max_iters: Number of iterations of the run.
        max_epochs: Number of epochs of the run; None for a loop that counts iterations.
    """

    epoch_length: int
    max_iters: int
    max_epochs: int | None


def run_length(cfg: Config, epoch_length: int) -> RunLength:
    """Return the length of the training that a config describes.

    Args:
        cfg: The final config.
        epoch_length: Number of batches per epoch.
    """
    if "max_iters" in cfg.train_cfg:
        return RunLength(epoch_length, cfg.train_cfg.max_iters, None)
    epochs = cfg.train_cfg.max_epochs
    return RunLength(epoch_length, epochs * epoch_length, epochs)


class Replay(NamedTuple):
    """History of a schedule up to an iteration.

    Attributes:
        rates: (n,) float64, learning rate of the first parameter group in each iteration.
        schedulers: MMEngine's schedulers after these iterations.
        param_groups: Parameter groups of their optimizer, with the values of the next iteration.
    """

    rates: np.ndarray
    schedulers: list[_ParamScheduler]
    param_groups: list[dict[str, Any]]


def replay(
    cfg: Config,
    length: RunLength,
    base_rates: Sequence[float],
    iterations: int,
    epochs: int | None = None,
) -> Replay:
    """Step the schedulers of a config as in a training, without a model.

    The values are bit-identical to those of a training, since MMEngine's schedulers are run.

    Args:
        cfg: The final config.
        length: Length of the run, and of schedulers without an ``end``.
        base_rates: Learning rate of each parameter group before scheduling.
        iterations: Number of iterations to replay.
        epochs: Number of epoch ends to replay. Defaults to all within the iterations.

    Raises:
        UserError: If the optimizer or a scheduler cannot be built from its settings.
    """
    if epochs is None:
        epochs = iterations // length.epoch_length if length.max_epochs is not None else 0
    optimizer = _build_optimizer(cfg, base_rates)
    schedulers = [
        _build_scheduler(part, optimizer, length) for part in _as_list(cfg.get("param_scheduler"))
    ]
    optimizer._global_step = 0  # MMEngine warns of a scheduler that is stepped before its optimizer
    rates = np.empty(iterations)
    for iteration in range(iterations):
        rates[iteration] = optimizer.param_groups[0]["lr"]
        for scheduler in schedulers:
            if not scheduler.by_epoch:
                scheduler.step()
        if (iteration + 1) % length.epoch_length == 0 and epochs > 0:
            epochs -= 1
            for scheduler in schedulers:
                if scheduler.by_epoch:
                    scheduler.step()
    return Replay(rates, schedulers, optimizer.param_groups)


def base_rates(cfg: Config, model: torch.nn.Module) -> list[float]:
    """Return the learning rate of each parameter group of a model before scheduling."""
    settings = {k: v for k, v in cfg.optim_wrapper.items() if k in ("constructor", "paramwise_cfg")}
    # A fused optimizer needs parameters on a GPU. Precision has no effect on the rates.
    optimizer = {k: v for k, v in cfg.optim_wrapper.optimizer.items() if k != "fused"}
    wrapper = build_optim_wrapper(model, copy.deepcopy({**settings, "optimizer": optimizer}))
    return [group["lr"] for group in wrapper.param_groups]


def is_replayable(cfg: Config) -> bool:
    """Return whether the schedule only depends on iterations and epochs."""
    schedulers = cfg.get("param_scheduler") or []
    if isinstance(schedulers, Mapping) and "type" not in schedulers:
        return False  # several optimizers
    kinds = [PARAM_SCHEDULERS.get(part["type"]) for part in _as_list(schedulers)]
    return not any(getattr(kind, "need_val_args", False) for kind in kinds)


def check_schedule(cfg: Config, length: RunLength) -> list[str]:
    """Check the learning rates of a run.

    Args:
        cfg: The final config.
        length: Length of the run.

    Returns:
        Warnings.

    Raises:
        UserError: If a scheduler cannot be built, a rate is negative or not finite, or the rate is
            0 for more than one epoch at the end.
    """
    if not is_replayable(cfg):
        return []
    base = float(cfg.optim_wrapper.optimizer.get("lr", 1e-3))
    rates = replay(cfg, length, [base], length.max_iters).rates
    if not np.isfinite(rates).all() or (rates < 0).any():
        first = int(np.argmax(~np.isfinite(rates) | (rates < 0)))
        raise UserError(
            f"the learning rate must not be negative, got {rates[first]} from param_scheduler in "
            f"iteration {first + 1}"
        )
    trained = np.flatnonzero(rates)
    last = int(trained[-1]) + 1 if len(trained) else 0
    if length.max_iters - last > length.epoch_length:
        raise UserError(
            f"param_scheduler gives the learning rate 0 from iteration {last + 1} on, but the run "
            f"has {length.max_iters:,} iterations ({_length_setting(length)}); remove `end` from "
            "the scheduler, so that it ends with the run, or shorten the run"
        )
    warnings = []
    counts = cfg.optim_wrapper.get("accumulative_counts", 1)
    if length.max_epochs is not None and length.epoch_length % counts:
        warnings.append(
            f"an epoch has {length.epoch_length:,} iterations, not a multiple of "
            f"optim_wrapper.accumulative_counts={counts}: a run cannot be resumed from checkpoints "
            "in the middle of an accumulation"
        )
    if length.max_iters > 1 and (np.diff(rates) > 0).all():
        warnings.append(
            f"the learning rate still rises when the run ends after {length.max_iters:,} "
            f"iterations ({_length_setting(length)}): set a shorter warm-up in param_scheduler"
        )
    return warnings


def scale_to_batch(cfg: Config, processes: int) -> None:
    """Scale the learning rate and schedule of a config to its batch size.

    This is the linear scaling rule (Goyal et al. 2017, arXiv 1706.02677): a step with k times as
    many pairs uses k times the rate. The total batch then processes the same number of pairs in 1/k
    of the iterations, so every iteration count of a scheduler, such as the warm-up, is divided by
    k. Epoch counts do not change.

    Noam's rate in iteration n with a warm-up of w, ``lr * D^-0.5 * min(n^-0.5, n * w^-1.5)``, has a
    maximum that grows by k^0.5 if w is divided by k. Its ``lr`` is therefore multiplied by k^0.5
    only, so that the rate after the same number of pairs is exactly k times that of the base:
    ``k^0.5 * min(n^-0.5, n * (w/k)^-1.5) = k * min((kn)^-0.5, kn * w^-1.5)``.

    With ``accumulative_counts=a`` a step uses the pairs of a iterations, and the rate is also
    multiplied by a.

    Args:
        cfg: The config, changed in place. The base is ``auto_scale_lr.base_batch_size``.
        processes: Number of processes, each with its own batch.

    Raises:
        UserError: If the config has no base, or a scheduler cannot be scaled.
    """
    base = (cfg.get("auto_scale_lr") or {}).get("base_batch_size")
    if base is None:
        raise UserError(
            "`auto_scale_lr.base_batch_size` must be set to scale the learning rate, but "
            f"{cfg.filename} has none"
        )
    ratio = processes * cfg.train_dataloader.batch_size / base
    factor = ratio * cfg.optim_wrapper.get("accumulative_counts", 1)
    for scheduler in _as_list(cfg.get("param_scheduler")):
        if scheduler.get("by_epoch", True):
            continue
        if "gamma" in scheduler and "step_size" not in scheduler and "milestones" not in scheduler:
            raise UserError(
                f"{scheduler['type']} with by_epoch=False decays in each iteration and cannot be "
                "scaled to another batch size; use by_epoch=True"
            )
        for key in _ITERATION_COUNTS:
            if scheduler.get(key):
                scheduler[key] = max(1, round(scheduler[key] / ratio))
        for key in ("milestones", "periods"):
            if key in scheduler:
                scheduler[key] = [max(1, round(count / ratio)) for count in scheduler[key]]
        if scheduler["type"].endswith("NoamLR"):
            factor /= math.sqrt(ratio)
    cfg.optim_wrapper.optimizer.lr *= factor
    # MMEngine's runner would scale the rate a second time, and not the schedule.
    cfg.auto_scale_lr.enable = False


def _build_optimizer(cfg: Config, rates: Sequence[float]) -> Any:
    """Build the optimizer with one dummy parameter per parameter group."""
    wrapper = cfg.optim_wrapper
    settings = {k: v for k, v in wrapper.optimizer.items() if k != "fused"}
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": float(r)} for r in rates]
    try:
        optimizer = OPTIMIZERS.build({**settings, "params": groups})
        # Only to check the arguments.
        OptimWrapper(optimizer, clip_grad=copy.deepcopy(wrapper.get("clip_grad")))
    except (AssertionError, TypeError, ValueError) as error:
        raise UserError(f"optim_wrapper: {error}") from None
    return optimizer


def _build_scheduler(part: Any, optimizer: Any, length: RunLength) -> _ParamScheduler:
    part = copy.deepcopy(dict(part))
    by_epoch = part.get("by_epoch", True)
    # As in MMEngine's runner. For a loop that counts iterations, the run is one epoch.
    part.setdefault("end", (length.max_epochs or 1) if by_epoch else length.max_iters)
    if part["end"] <= part.get("begin", 0):
        unit = "epochs" if by_epoch else "iterations"
        raise UserError(
            f"param_scheduler of type {part['type']} begins after {part.get('begin', 0)} {unit} "
            f"and ends after {part['end']}; the run has {length.max_iters:,} iterations "
            f"({_length_setting(length)}): set a smaller begin, and a shorter warm-up before it"
        )
    try:
        return PARAM_SCHEDULERS.build(
            part, default_args=dict(optimizer=optimizer, epoch_length=length.epoch_length)
        )
    except (AssertionError, TypeError, ValueError) as error:
        raise UserError(f"param_scheduler of type {part['type']}: {error}") from None


def _as_list(schedulers: Any) -> list[Any]:
    if schedulers is None:
        return []
    return list(schedulers) if isinstance(schedulers, (list, tuple)) else [schedulers]


def _length_setting(length: RunLength) -> str:
    if length.max_epochs is None:
        return f"train_cfg.max_iters={length.max_iters}"
    return f"train_cfg.max_epochs={length.max_epochs}"
