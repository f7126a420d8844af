"""Label-smoothed, CLIP-weighted word losses (paper, Eqs. 9-11, and the released code)."""

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from pcm_plugin.models.functional.precision import full_precision


@full_precision
def smoothed_kl(logits: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """KL divergence from the smoothed target: ``1 - s`` on it, ``s / (V - 1)`` on each other word.

    Args:
        logits: (n, V).
        targets: (n,) int64, from 0 to V - 1.
        smoothing: s, from 0 to below 1.

    Returns:
        The divergences (n,) float32, and log p of the targets (n,) float32.
    """
    return _SmoothedKL.apply(logits, targets, smoothing)


class _SmoothedKL(torch.autograd.Function):
    """With its gradient in place: PyTorch's own chain would hold four tables of (n, V), not two."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        log_probs = logits.log_softmax(-1)
        target = log_probs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        ctx.save_for_backward(log_probs, targets)
        ctx.rest, ctx.confidence = 0.0, 1 - smoothing
        if smoothing == 0:
            return -target, target
        ctx.rest = rest = smoothing / (logits.shape[-1] - 1)
        # The entropy of the smoothed target has no gradient, but belongs to the divergence.
        entropy = ctx.confidence * math.log(ctx.confidence) + smoothing * math.log(rest)
        losses = entropy - ctx.confidence * target - rest * (log_probs.sum(-1) - target)
        return losses, target

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_loss: Tensor, by_target: Tensor) -> tuple[Tensor, None, None]:
        log_probs, targets = ctx.saved_tensors
        # d loss / d z = p - smoothed target, d log p / d z = target - p.
        grad = log_probs.exp().mul_((by_loss - by_target).unsqueeze(1))
        grad.sub_((by_loss * ctx.rest).unsqueeze(1))
        on_target = by_target - by_loss * (ctx.confidence - ctx.rest)
        return grad.scatter_add_(1, targets.unsqueeze(1), on_target.unsqueeze(1)), None, None


def clip_weights(clip_scores: Tensor, clip_weight: float, score_scale: float) -> Tensor:
    """Weight of a pair by its CLIP score: ``clamp(w * cos, 0, 1)`` (paper, Eq. 9).

    Args:
        clip_scores: (B,), ``score_scale`` times the cosine of image and caption.
        clip_weight: w.
        score_scale: What the scores were multiplied by when they were stored.

    Returns:
        (B,) float32.
    """
    return (clip_scores.float() / score_scale * clip_weight).clamp(0, 1)


def sum_over_ranks(local: Tensor) -> Tensor:
    """Sum a tensor over all processes, ready for DDP's averaging of gradients.

    Its value is the sum over ranks; its gradient with respect to ``local`` is the number of ranks.
    DDP then divides by just that number, so that a loss made of such sums, the same on every rank,
    steps as one process with the whole batch would. Without a process group it is ``local``.

    Every rank must call it equally often.

    Args:
        local: Any shape, this rank's share.

    Returns:
        The same shape.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return local
    total = local.detach().clone()
    dist.all_reduce(total)
    scaled = local * dist.get_world_size()
    return scaled + (total - scaled.detach())


def mean_over_ranks(*values: Tensor) -> Tensor:
    """Mean of each of some equally long vectors over the whole batch, across ranks.

    Args:
        values: (n,) each; n may differ between ranks.

    Returns:
        One mean a vector, stacked; one communication for all of them.
    """
    sums = torch.stack([*(value.sum() for value in values), values[0].new_tensor(len(values[0]))])
    sums = sum_over_ranks(sums)
    return sums[:-1] / sums[-1]


def batch_confidence(losses: Tensor, factors: Tensor) -> Tensor:
    """Mean of all products of a word's loss with any word's factor (released ``batch`` form).

    The released code broadcasts (n,) against (n, 1) and averages the (n, n) table; the mean of
    such a table is the product of two means.

    Args:
        losses: (n,), weighted losses of the valid words.
        factors: (n,), ``(1 - p) ** gamma`` of the same words.

    Returns:
        A scalar, with gradient through both.
    """
    loss, factor = mean_over_ranks(losses, factors)
    return loss * factor


def word_confidence(losses: Tensor, factors: Tensor) -> Tensor:
    """Mean of each word's loss times its own factor (released ``word`` form).

    Args:
        losses: (n,).
        factors: (n,).

    Returns:
        A scalar.
    """
    return mean_over_ranks(losses * factors)[0]


def sentence_confidence(
    losses: Tensor, factors: Tensor, sentences: Tensor, num_sentences: int
) -> Tensor:
    """Mean of the products of losses and factors within a sentence (released ``sent`` form).

    Args:
        losses: (n,).
        factors: (n,).
        sentences: (n,) int64, the sentence each word belongs to.
        num_sentences: B.

    Returns:
        A scalar. A sentence of l words counts as l * l pairs, as in the released code.
    """
    table = torch.stack([losses, factors, torch.ones_like(losses)])
    sums = table.new_zeros(3, num_sentences).index_add(1, sentences, table)
    loss, factor, length = sums
    total, pairs = sum_over_ranks(torch.stack([(loss * factor).sum(), (length**2).sum()]))
    return total / pairs
