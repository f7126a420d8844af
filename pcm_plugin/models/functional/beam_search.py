"""Beam search over any incremental decoder."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor | None], Tensor]
"""``step(words, parents) -> logits``.

``words`` (B, W) int64 are the last words of W beams an image; ``parents`` (B, W) int64 are the
beams of the step before that they continue, None in the first step, where W is 1; ``logits`` are
(B, W, V)."""


class BeamOutput(NamedTuple):
    """What a beam search found, best first.

    Attributes:
        ids: (B, R, T) int64, words without BOS; EOS and after it ``eos_id``.
        log_probs: (B, R, T) float32, log p of each word; 0 after EOS.
        scores: (B, R) float32, their sums.
    """

    ids: Tensor
    log_probs: Tensor
    scores: Tensor


def best_words(log_probs: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The likeliest words, as ``topk`` finds them but in fewer passes over V.

    The best words stand in the groups with the best maxima, and a maximum is cheap.

    Args:
        log_probs: (..., V).
        count: k, at most V.

    Returns:
        Their log-probabilities and indices, (..., k) each, best first.
    """
    size = max(1, math.isqrt(log_probs.shape[-1]))
    whole = log_probs.shape[-1] // size * size
    groups = log_probs[..., :whole].unflatten(-1, (-1, size))
    chosen = groups.amax(-1).topk(min(count, groups.shape[-2]), dim=-1).indices
    places = chosen.unsqueeze(-1) * size + torch.arange(size, device=chosen.device)
    rest = torch.arange(whole, log_probs.shape[-1], device=chosen.device)
    rest = rest.expand(*chosen.shape[:-1], -1)
    candidates = torch.cat([places.flatten(-2), rest], dim=-1)
    found, picked = log_probs.gather(-1, candidates).topk(count, dim=-1)
    return found, candidates.gather(-1, picked)


@torch.no_grad()
def beam_search(
    step: Step,
    batch_size: int,
    beam_size: int,
    max_len: int,
    bos_id: int = 0,
    eos_id: int = 0,
    num_return: int = 1,
    device: torch.device | str | None = None,
) -> BeamOutput:
    """Search the likeliest word sequences: sum of log-probabilities, no length penalty.

    An ended beam competes on with its score. The search stops as soon as the ``num_return`` best
    beams of every image have ended: scores only fall, so that none can still be overtaken.

    Args:
        step: The decoder.
        batch_size: B.
        beam_size: Beams an image; 1 is greedy search.
        max_len: T, the most words a sequence may have, EOS included.
        bos_id: First input. Defaults to 0.
        eos_id: Ends a sequence. Defaults to 0.
        num_return: R, at most ``beam_size``. Defaults to 1.
        device: Where the first words are made. Defaults to torch's default device.

    Returns:
        The R best sequences of each image.

    Raises:
        ValueError: If R, the beam size and the vocabulary size do not fit each other.
    """
    if not 1 <= num_return <= beam_size:
        raise ValueError(f"num_return={num_return}: give 1 to beam_size={beam_size}")
    words = torch.full((batch_size, 1), bos_id, device=device)
    parents: Tensor | None = None
    scores = torch.zeros(batch_size, 1, device=words.device)
    ended = torch.zeros(batch_size, 1, dtype=torch.bool, device=words.device)
    ids = words.new_full((batch_size, 1, max_len), eos_id)
    log_probs = scores.new_zeros(batch_size, 1, max_len)

    for t in range(max_len):
        logits = step(words, parents).float()
        if beam_size > logits.shape[-1]:
            raise ValueError(
                f"beam_size={beam_size} but the vocabulary has {logits.shape[-1]} words: lower it"
            )
        # A beam never has more than beam_size successors among the best, so V is cut first.
        gains, candidates = best_words(logits.log_softmax(-1), beam_size)
        # An ended beam has one successor, itself.
        gains = gains.masked_fill(ended.unsqueeze(-1), -torch.inf)
        gains[..., 0].masked_fill_(ended, 0.0)
        candidates = candidates.masked_fill(ended.unsqueeze(-1), eos_id)

        totals = (scores.unsqueeze(-1) + gains).flatten(1)
        scores, picked = totals.topk(beam_size, dim=-1)
        parents = picked // beam_size
        words = candidates.flatten(1).gather(1, picked)
        ended = ended.gather(1, parents) | (words == eos_id)

        past = parents.unsqueeze(-1).expand(-1, -1, max_len)
        ids, log_probs = ids.gather(1, past), log_probs.gather(1, past)
        ids[..., t] = words
        log_probs[..., t] = gains.flatten(1).gather(1, picked)
        if bool(ended[:, :num_return].all()):
            break

    return BeamOutput(ids[:, :num_return], log_probs[:, :num_return], scores[:, :num_return])
