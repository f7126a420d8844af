"""Resume a training as if it had never been interrupted."""

from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from pcm_plugin.engine.checkpoints import restart_options
from pcm_plugin.engine.run_record import (
    RECORD,
    Record,
    find_changes_for_resume,
    find_schedule_changes,
)
from pcm_plugin.engine.schedules import RunLength, is_replayable, replay, run_length
from pcm_plugin.errors import UserError


class ContinueRunHook(Hook):
    """Hook that restores schedules for the current config and stores the run's record.

    MMEngine restores schedulers as they were built for the old length of the run. This hook
    replaces them with the schedulers of the current config, stepped to the current iteration, so
    that the run continues like an uninterrupted run of the new length. :func:`check_resume` ensures
    that the learning rates so far are the same.

    Args:
        run: Record of the run (see :func:`.record_run`).
    """

    priority = "VERY_HIGH"

    def __init__(self, run: Record) -> None:
        self.run = run

    def before_run(self, runner: Runner) -> None:
        """Store the record in the message hub, which is part of every checkpoint."""
        runner.message_hub.update_info(RECORD, self.run)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Replace the schedules in a checkpoint before the runner restores its state."""
        if not runner._resume or "param_schedulers" not in checkpoint:
            return
        checkpoint["message_hub"]["runtime_info"][RECORD] = self.run
        if not is_replayable(runner.cfg):
            return
        meta = checkpoint["meta"]
        length = run_length(runner.cfg, len(runner.train_dataloader))
        groups = runner.optim_wrapper.param_groups
        rates = [group.get("initial_lr", group["lr"]) for group in groups]
        replayed = replay(runner.cfg, length, rates, meta["iter"], meta["epoch"])
        states = [scheduler.state_dict() for scheduler in replayed.schedulers]
        checkpoint["param_schedulers"] = states
        names = {scheduler.param_name for scheduler in replayed.schedulers}
        restored = checkpoint["optimizer"]["param_groups"]
        for group, values in zip(restored, replayed.param_groups, strict=True):
            group.update({name: values[name] for name in names})


def check_resume(
    checkpoint: dict[str, Any],
    path: Path,
    cfg: Config,
    run: Record,
    length: RunLength,
    base_rates: list[float],
) -> None:
    """Check that a resumed training would equal one that was never interrupted.

    The length of the run may differ if the learning rates up to the checkpoint do not depend on it,
    and so may settings without effect on the weights. If a shorter run validated its last epoch
    outside of the interval, that validation still counts for the best checkpoint.

    Args:
        checkpoint: Content of the checkpoint from :func:`.check_resumable`.
        path: File of the checkpoint, for messages.
        cfg: The final config.
        run: Record of the run with the current settings.
        length: Length of the run.
        base_rates: Learning rate of each parameter group before scheduling.

    Raises:
        UserError: If the run cannot be resumed. The message lists the differences with both values
            and what to do.
    """
    known = checkpoint["message_hub"]["runtime_info"].get(RECORD)
    if known is not None and (changes := find_changes_for_resume(known, run)):
        raise _refusal(path, "it was trained with other settings or data", changes)
    _check_epochs(checkpoint, path, length)
    counts = cfg.optim_wrapper.get("accumulative_counts", 1)
    done = checkpoint["meta"]["iter"]
    if done % counts:
        raise UserError(
            f"{path} was written after {done} iterations, in the middle of a gradient accumulation "
            f"over {counts} (optim_wrapper.accumulative_counts), and does not contain these "
            f"gradients. Resume from a checkpoint after a multiple of {counts} iterations, or "
            f"start a new run from its weights: {restart_options(path)}"
        )
    _check_rates(checkpoint, path, cfg, run, length, base_rates)


def _check_epochs(checkpoint: dict[str, Any], path: Path, length: RunLength) -> None:
    done, epochs = checkpoint["meta"]["iter"], checkpoint["meta"]["epoch"]
    if length.max_epochs is None:
        longest, unit, count = length.max_iters, "iterations", done
    else:
        inside = checkpoint["message_hub"]["runtime_info"].get("batches_done_in_epoch", 0)
        before = (done - inside) / epochs if epochs else length.epoch_length
        if before != length.epoch_length:
            raise _refusal(
                path,
                "its epochs have another length",
                [f"iterations of an epoch: {before:g} there, {length.epoch_length} here"],
            )
        longest, unit, count = length.max_epochs, "epochs", epochs
    if count > longest:
        raise UserError(
            f"{path} was written after {count} {unit}, but the run has only {longest}: set "
            f"train_cfg.max_{'iters' if unit == 'iterations' else unit} to at least {count}"
        )


def _check_rates(
    checkpoint: dict[str, Any],
    path: Path,
    cfg: Config,
    run: Record,
    length: RunLength,
    base_rates: list[float],
) -> None:
    known = checkpoint["message_hub"]["runtime_info"].get(RECORD)
    changes = find_schedule_changes(known, run) if known is not None else []
    if not is_replayable(cfg):
        changes = [change for change in changes if not change.startswith("train_cfg.")]
        if changes:
            raise _refusal(path, "it was trained with another schedule", changes)
        return
    history = checkpoint["message_hub"]["log_scalars"].get("train/lr")
    recorded = np.asarray([] if history is None else history.data[0], np.float64)
    meta = checkpoint["meta"]
    rates = replay(cfg, length, base_rates, meta["iter"], meta["epoch"]).rates
    count = min(len(recorded), len(rates))  # the history has a maximum length
    one, other = recorded[len(recorded) - count :], rates[len(rates) - count :]
    different = np.flatnonzero(~np.isclose(one, other, rtol=1e-6, atol=0))
    before = [group.get("initial_lr") for group in checkpoint["optimizer"]["param_groups"]]
    if not len(different) and (None in before or np.allclose(before, base_rates, rtol=1e-6)):
        return
    if len(different):
        first = int(different[0])
        where = len(rates) - count + first + 1
        changes = [
            f"learning rate of iteration {where}: {one[first]:.6g} there, {other[first]:.6g} here",
            *changes,
        ]
    else:
        changes = [f"base learning rates: {before} there, {base_rates} here", *changes]
    raise _refusal(path, "an uninterrupted run would have had other learning rates so far", changes)


def _refusal(path: Path, why: str, changes: list[str]) -> UserError:
    return UserError(
        "\n".join(
            [
                f"{path} cannot be resumed: {why}.",
                *changes,
                "Restore these settings to resume the run, or start a new run from its weights: "
                + restart_options(path),
            ]
        )
    )
