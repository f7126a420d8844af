"""Beam search with any incremental decoder.

Shapes: B images, W beams per image, V vocabulary size, R returned sequences, T words.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pcm_plugin.errors import UserError

Step = Callable[[Tensor, Tensor | None], Tensor]
"""``step(words, parents) -> logits``.

``words`` (B, W) int64 are the last words of the W beams of each image. ``parents`` (B, W) int64 are
the beams of the previous step that they continue, or None in the first step, in which W is 1.
``logits`` are (B, W, V)."""


class BeamOutput(NamedTuple):
    """Sequences found by a beam search, best first.

    Attributes:
        ids: (B, R, T) int64, words without BOS, including the EOS that ended the sequence; padded
            with the first ``eos_id``.
        log_probs: (B, R, T) float32, log-probability of each word; 0 after EOS.
        scores: (B, R) float32, the sum of ``log_probs`` divided by ``lengths ** length_penalty``.
        lengths: (B, R) int64, number of words of each sequence, including EOS.
    """

    ids: Tensor
    log_probs: Tensor
    scores: Tensor
    lengths: Tensor


def grouped_topk(log_probs: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Compute ``topk`` over the vocabulary with fewer passes over V.

    The k best words are in the k groups with the largest maxima, and computing maxima is cheap.

    Args:
        log_probs: (..., V).
        count: k, at most V.

    Returns:
        Log-probabilities and indices, (..., k) each, best first.
    """
    size = max(1, math.isqrt(log_probs.shape[-1]))
    whole = log_probs.shape[-1] // size * size
    groups = log_probs[..., :whole].unflatten(-1, (-1, size))  # (..., G, size)
    best_groups = groups.amax(-1).topk(min(count, groups.shape[-2]), dim=-1).indices  # (..., g)
    members = best_groups.unsqueeze(-1) * size + torch.arange(size, device=best_groups.device)
    rest = torch.arange(whole, log_probs.shape[-1], device=best_groups.device)  # in no group
    rest = rest.expand(*best_groups.shape[:-1], -1)  # (..., V - G * size)
    candidates = torch.cat([members.flatten(-2), rest], dim=-1)
    values, selected = log_probs.gather(-1, candidates).topk(count, dim=-1)  # (..., k)
    return values, candidates.gather(-1, selected)


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
    """Search for the most probable word sequences.

    The score of a sequence is ``sum(log_probs) / length ** length_penalty``, where the length
    includes EOS: 0 gives the sum of log-probabilities (PCM-Net's released code), 1 the mean per
    word (ViECap's released code). As in both, beams are ranked by this score at every step, and a
    finished beam competes with its final score.

    The search stops when the ``num_return`` best beams of every image have finished and no open
    beam can overtake them.

    Args:
        step: The decoder.
        batch_size: B.
        beam_size: Beams per image; 1 is greedy search.
        max_len: T, the maximum number of words of a sequence, EOS included.
        bos_id: First input word. Defaults to 0.
        eos_id: Word that ends a sequence, or several such words. Defaults to 0.
        num_return: R, at most ``beam_size``. Defaults to 1.
        device: Device of the first words. Defaults to PyTorch's default device.
        length_penalty: Exponent of the length; positive values favor long sequences. Defaults to
            0.0.

    Returns:
        The R best sequences of each image.

    Raises:
        UserError: If ``num_return`` or the vocabulary size does not fit ``beam_size``.
    """
    if not 1 <= num_return <= beam_size:
        raise UserError(
            f"`num_return` must be from 1 to beam_size={beam_size}, got `{num_return}`: reduce it, "
            "or increase the beam size"
        )
    eos_ids = [eos_id] if isinstance(eos_id, int) else list(eos_id)
    words = torch.full((batch_size, 1), bos_id, device=device)  # (B, W), W = 1 at first
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
                f"`beam_size` must be at most the {logits.shape[-1]} words of the vocabulary, got "
                f"`{beam_size}`: reduce it"
            )
        # No beam has more than beam_size successors among the best, so the best words suffice.
        gains, candidates = grouped_topk(logits.log_softmax(-1), beam_size)  # (B, W, beam_size)
        # A finished beam has one successor, itself.
        gains = gains.masked_fill(ended.unsqueeze(-1), -torch.inf)
        gains[..., 0].masked_fill_(ended, 0.0)
        candidates = candidates.masked_fill(ended.unsqueeze(-1), eos_ids[0])

        totals = sums.unsqueeze(-1) + gains  # (B, W, beam_size)
        lengths = lengths + (~ended).long()
        ranked = totals
        if length_penalty:
            ranked = totals / lengths.unsqueeze(-1) ** length_penalty
        scores, selected = ranked.flatten(1).topk(beam_size, dim=-1)  # (B, beam_size)
        parents = selected // beam_size
        words = candidates.flatten(1).gather(1, selected)
        sums = totals.flatten(1).gather(1, selected)
        lengths = lengths.gather(1, parents)
        ended = ended.gather(1, parents)
        for eos in eos_ids:
            ended = ended | (words == eos)

        index = parents.unsqueeze(-1).expand(-1, -1, max_len)  # (B, beam_size, T)
        ids, log_probs = ids.gather(1, index), log_probs.gather(1, index)
        ids[..., t] = words
        log_probs[..., t] = gains.flatten(1).gather(1, selected)
        if bool(_is_decided(scores, sums, ended, num_return, max_len, length_penalty)):
            break

    best = slice(num_return)
    return BeamOutput(ids[:, best], log_probs[:, best], scores[:, best], lengths[:, best])


def _is_decided(
    scores: Tensor,
    sums: Tensor,
    ended: Tensor,
    num_return: int,
    max_len: int,
    length_penalty: float,
) -> Tensor:
    """Return a bool scalar: whether the best ``num_return`` beams (B, W) can no longer change."""
    decided = ended[:, :num_return].all()
    if length_penalty <= 0:  # extending a sequence can only lower its score
        return decided
    # Sums can only decrease, so this is an upper bound on the final scores of open beams.
    reachable = sums.masked_fill(ended, -torch.inf) / max_len**length_penalty
    return decided & (scores[:, num_return - 1] >= reachable.amax(-1)).all()
