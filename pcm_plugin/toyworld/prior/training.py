"""Resumable training loop of the toy world's networks."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm

from pcm_plugin.formats.tensor_file import write_tensors

Module = TypeVar("Module", bound=nn.Module)
logger = logging.getLogger(__name__)


def _save(
    path: Path, model: nn.Module, ema: nn.Module, optimizer: torch.optim.Adam, step: int
) -> None:
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.state_dict().items()}
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter, {})
        for key in ("exp_avg", "exp_avg_sq", "step"):
            if key in state:
                tensors[f"{key}.{name}"] = state[key]
    # safetensors does not store shared memory, so tied weights are cloned.
    tensors = {k: v.detach().clone() for k, v in tensors.items()}
    write_tensors(path, tensors, {"step": str(step)})


def _load(path: Path, model: nn.Module, ema: nn.Module, optimizer: torch.optim.Adam) -> int:
    tensors = load_file(path)
    for prefix, module in (("model.", model), ("ema.", ema)):
        module.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )
    for name, parameter in model.named_parameters():
        if f"step.{name}" in tensors:
            optimizer.state[parameter] = {
                key: tensors[f"{key}.{name}"] for key in ("exp_avg", "exp_avg_sq", "step")
            }
    with safe_open(path, "pt") as file:
        return int(file.metadata()["step"])


def train(
    model: Module,
    loss_at: Callable[[int], Tensor],
    checkpoint: Path,
    steps: int,
    lr: float,
    weight_decay: float = 0.05,
    warmup: int = 200,
    save_every: int = 200,
    ema_decay: float = 0.999,
    decay: float = 0.25,
) -> Module:
    """Minimize ``loss_at(step)``, resuming from ``checkpoint`` if it exists.

    The optimizer is AdamW with gradients clipped to norm 1. The learning rate is warmed up
    linearly, constant, and decays linearly to zero at the end. Every step seeds the random
    generator with its number, so that a resumed run equals an uninterrupted one. A run can be
    extended by more ``steps`` before its decay starts, if ``loss_at`` does not depend on their
    number.

    Args:
        model: Model to train in place.
        loss_at: Returns the loss of a step.
        checkpoint: Safetensors file.
        steps: Total number of steps.
        lr: Peak learning rate.
        weight_decay: Weight decay of matrices; other parameters have none. Defaults to 0.05.
        warmup: Number of warm-up steps. Defaults to 200.
        save_every: Steps between checkpoints. Defaults to 200.
        ema_decay: Decay of the moving average of the weights. Defaults to 0.999.
        decay: Share of the steps in which the learning rate decays; 0 for none. Defaults to 0.25.

    Returns:
        Copy of the model with averaged weights.

    Raises:
        FloatingPointError: If the loss is not finite.
    """
    import copy

    ema = copy.deepcopy(model).eval().requires_grad_(False)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict] = [{"params": matrices, "weight_decay": weight_decay}, {"params": others}]
    optimizer = torch.optim.AdamW(
        groups,
        lr=lr,
        betas=(0.9, 0.98),
        weight_decay=0.0,
    )
    start = _load(checkpoint, model, ema, optimizer) if checkpoint.exists() else 0
    averaged: list[Tensor] = [*ema.parameters()]
    current: list[Tensor] = [*model.parameters()]
    mean = None
    bar = tqdm(range(start, steps), initial=start, total=steps, desc=checkpoint.stem, mininterval=5)
    model.train()
    for step in bar:
        torch.manual_seed(step)
        left = (steps - step) / steps
        rate = lr * min(1.0, (step + 1) / warmup, left / decay if decay else 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_at(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            keep = min(ema_decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(averaged, current, 1 - keep)
            for mine, theirs in zip(ema.buffers(), model.buffers(), strict=True):
                mine.copy_(theirs)
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the loss must be finite, got {value} at step {step} of {checkpoint}"
            )
        mean = value if mean is None else 0.98 * mean + 0.02 * value
        bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
        if (step + 1) % save_every == 0 or step + 1 == steps:
            _save(checkpoint, model, ema, optimizer, step + 1)
            logger.info("%s: step %d, loss %.4f", checkpoint.stem, step + 1, mean)
    return ema
