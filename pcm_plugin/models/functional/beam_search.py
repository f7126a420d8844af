"""Beam search over any incremental decoder."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pcm_plugin.errors import UserError

Step = Callable[[Tensor, Tensor | None], Tensor]
"""``step(words, parents) -> logits``.

``words`` (B, W) int64 are the last words of W beams an image; ``parents`` (B, W) int64 are the
beams of the step before that they continue, None in the first step, where W is 1; ``logits`` are
(B, W, V)."""


class BeamOutput(NamedTuple):
    """Result of a beam search, best first.

    Attributes:
        ids: (B, R, T) int64, words without BOS; the EOS that ended a sequence, and after it the
            (first) ``eos_id``.
        log_probs: (B, R, T) float32, log p of each word; 0 after EOS.
        scores: (B, R) float32, the sum of ``log_probs`` over ``lengths ** length_penalty``.
        lengths: (B, R) int64, words of each sequence, EOS included.
    """

    ids: Tensor
    log_probs: Tensor
    scores: Tensor
    lengths: Tensor


def grouped_topk(log_probs: Tensor, count: int) -> tuple[Tensor, Tensor]:
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
    eos_id: int | Sequence[int] = 0,
    num_return: int = 1,
    device: torch.device | str | None = None,
    length_penalty: float = 0.0,
) -> BeamOutput:
    """Search the best word sequences by beam search.

    The score of a sequence is ``sum(log_probs) / length ** length_penalty``, its length counting
    EOS: 0 gives the sum of log-probabilities (PCM-Net's released code), 1 their mean per word
    (ViECap's released code). As in both, beams are kept by this score at every step, and a
    finished beam stays in competition with its score.

    The search stops when the ``num_return`` best beams of every image have finished and no open
    beam can overtake them.

    Args:
        step: The decoder.
        batch_size: B.
        beam_size: Beams per image; 1 is greedy search.
        max_len: T, the maximum number of words of a sequence, EOS included.
        bos_id: First input. Defaults to 0.
        eos_id: Word that ends a sequence, or several such words. Defaults to 0.
        num_return: R, at most ``beam_size``. Defaults to 1.
        device: Device of the first words. Defaults to torch's default device.
        length_penalty: Exponent of the length; positive values favor long sequences. Defaults to
            0.0.

    Returns:
        The R best sequences of each image.

    Raises:
        UserError: If ``num_return`` or the vocabulary size does not fit ``beam_size``.
    """
    if not 1 <= num_return <= beam_size:
        raise UserError(f"num_return={num_return}: give 1 to beam_size={beam_size}")
    eos_ids = [eos_id] if isinstance(eos_id, int) else list(eos_id)
    words = torch.full((batch_size, 1), bos_id, device=device)
    parents: Tensor | None = None
    sums = torch.zeros(batch_size, 1, device=words.device)
    scores = sums
    ended = torch.zeros(batch_size, 1, dtype=torch.bool, device=words.device)
    lengths = torch.zeros_like(words)
    ids = words.new_full((batch_size, 1, max_len), eos_ids[0])
    log_probs = sums.new_zeros(batch_size, 1, max_len)

    for t in range(max_len):
        logits = step(words, parents).float()
        if beam_size > logits.shape[-1]:
            raise UserError(
                f"beam_size={beam_size} but the vocabulary has {logits.shape[-1]} words: lower it"
            )
        # A beam never has more than beam_size successors among the best, so V is cut first.
        gains, candidates = grouped_topk(logits.log_softmax(-1), beam_size)
        # An ended beam has one successor, itself.
        gains = gains.masked_fill(ended.unsqueeze(-1), -torch.inf)
        gains[..., 0].masked_fill_(ended, 0.0)
        candidates = candidates.masked_fill(ended.unsqueeze(-1), eos_ids[0])

        totals = sums.unsqueeze(-1) + gains  # (B, W, beam_size)
        lengths = lengths + (~ended).long()
        ranked = totals
        if length_penalty:
            ranked = totals / lengths.unsqueeze(-1) ** length_penalty
        scores, picked = ranked.flatten(1).topk(beam_size, dim=-1)
        parents = picked // beam_size
        words = candidates.flatten(1).gather(1, picked)
        sums = totals.flatten(1).gather(1, picked)
        lengths = lengths.gather(1, parents)
        ended = ended.gather(1, parents)
        for eos in eos_ids:
            ended = ended | (words == eos)

        past = parents.unsqueeze(-1).expand(-1, -1, max_len)
        ids, log_probs = ids.gather(1, past), log_probs.gather(1, past)
        ids[..., t] = words
        log_probs[..., t] = gains.flatten(1).gather(1, picked)
        if bool(_is_decided(scores, sums, ended, num_return, max_len, length_penalty)):
            break

    kept = slice(num_return)
    return BeamOutput(ids[:, kept], log_probs[:, kept], scores[:, kept], lengths[:, kept])


def _is_decided(
    scores: Tensor,
    sums: Tensor,
    ended: Tensor,
    num_return: int,
    max_len: int,
    length_penalty: float,
) -> Tensor:
    """Whether the best ``num_return`` beams (B, W) can no longer change, as a bool scalar."""
    decided = ended[:, :num_return].all()
    if length_penalty <= 0:  # longer sequences only score lower
        return decided
    # Sums only fall, so this is the best score that an open beam can reach.
    reachable = sums.masked_fill(ended, -torch.inf) / max_len**length_penalty
    return decided & (scores[:, num_return - 1] >= reachable.amax(-1)).all()
