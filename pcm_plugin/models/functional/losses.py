"""Label-smoothed, CLIP-weighted word losses (paper, Eqs. 9-11, and the released code).

Shapes: B sentences, V vocabulary size, n words of the batch (without padding).
"""

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from pcm_plugin.models.functional.precision import full_precision


@full_precision
def smoothed_kl(logits: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Compute the KL divergence from the label-smoothed target distribution.

    The distribution has ``1 - s`` on the target and ``s / (V - 1)`` on each other word.

    Args:
        logits: (n, V).
        targets: (n,) int64, from 0 to V - 1.
        smoothing: s, from 0 to below 1.

    Returns:
        KL divergence (n,) float32, and log-probability of the targets (n,) float32.
    """
    return _SmoothedKL.apply(logits, targets, smoothing)


class _SmoothedKL(torch.autograd.Function):
    """KL divergence with an in-place gradient.

    On every device it holds two tensors of shape (n, V); PyTorch's elementary operations hold four.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        log_probs = logits.log_softmax(-1)  # (n, V)
        target = log_probs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        ctx.save_for_backward(log_probs, targets)
        ctx.other_mass, ctx.confidence = 0.0, 1 - smoothing
        if smoothing == 0:
            return -target, target
        ctx.other_mass = other_mass = smoothing / (logits.shape[-1] - 1)
        # The negative entropy of the smoothed target is constant, but part of the divergence.
        constant = ctx.confidence * math.log(ctx.confidence) + smoothing * math.log(other_mass)
        losses = constant - ctx.confidence * target - other_mass * (log_probs.sum(-1) - target)
        return losses, target

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, grad_target: Tensor) -> tuple[Tensor, None, None]:
        log_probs, targets = ctx.saved_tensors
        # d loss / d logits = p - smoothed target, d target / d logits = one-hot target - p.
        grad = log_probs.exp().mul_((grad_loss - grad_target).unsqueeze(1))  # (n, V)
        grad.sub_((grad_loss * ctx.other_mass).unsqueeze(1))
        on_target = grad_target - grad_loss * (ctx.confidence - ctx.other_mass)  # (n,)
        return grad.scatter_add_(1, targets.unsqueeze(1), on_target.unsqueeze(1)), None, None


def clip_weights(clip_scores: Tensor, clip_weight: float, score_scale: float) -> Tensor:
    """Compute the weight of each pair, ``clamp(w * cos(image, caption), 0, 1)`` (paper, Eq. 9).

    Args:
        clip_scores: (B,), ``score_scale`` times the cosine of image and caption.
        clip_weight: w.
        score_scale: Factor of the stored scores.

    Returns:
        (B,) float32.
    """
    return (clip_scores.float() / score_scale * clip_weight).clamp(0, 1)


def sum_over_ranks(local: Tensor) -> Tensor:
    """Sum a tensor over all processes, with the gradient that DDP expects.

    The value is the sum over ranks; the gradient with respect to ``local`` is the number of ranks.
    DDP divides gradients by this number, so a loss computed from such sums takes the same step as
    one process with the whole batch. Without a process group, the result is ``local``.

    Every rank must call it the same number of times.

    Args:
        local: The summand of this rank, any shape.

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
    """Compute the means of vectors over the whole batch, across ranks, in one all-reduce.

    Args:
        values: k vectors (n,); n may differ between ranks.

    Returns:
        (k,), one mean per vector.
    """
    count = values[0].new_tensor(len(values[0]))
    sums = torch.stack([*(value.sum() for value in values), count])  # (k + 1,)
    sums = sum_over_ranks(sums)
    return sums[:-1] / sums[-1]


def batch_confidence(losses: Tensor, factors: Tensor) -> Tensor:
    """Compute the mean loss times the mean factor (``batch`` variant of the released code).

    The released code broadcasts (n,) against (n, 1) and averages the (n, n) matrix, which is the
    product of the two means.

    Args:
        losses: (n,), weighted losses of the words.
        factors: (n,), ``(1 - p) ** gamma`` of the words.

    Returns:
        A scalar; the gradient flows through both.
    """
    loss, factor = mean_over_ranks(losses, factors)
    return loss * factor


def word_confidence(losses: Tensor, factors: Tensor) -> Tensor:
    """Compute the mean of each word's loss times its factor (``word`` variant, released code).

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
    """Compute the mean over pairs of words of one sentence (``sent`` variant, released code).

    Each pair contributes the loss of one word times the factor of the other.

    Args:
        losses: (n,).
        factors: (n,).
        sentences: (n,) int64, the sentence of each word.
        num_sentences: B.

    Returns:
        A scalar. A sentence of l words has l * l pairs, as in the released code.
    """
    columns = torch.stack([losses, factors, torch.ones_like(losses)])  # (3, n)
    sums = columns.new_zeros(3, num_sentences).index_add(1, sentences, columns)  # (3, B)
    loss, factor, length = sums
    total, pairs = sum_over_ranks(torch.stack([(loss * factor).sum(), (length**2).sum()]))
    return total / pairs
