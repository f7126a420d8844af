"""Order of candidates by the sum of their ranks under several scorers.

Shapes: S scorers, N candidates.
"""

from torch import Tensor


def rank_sums(scores: Tensor) -> Tensor:
    """Add up the ranks of candidates.

    The rank of a candidate under a scorer is the number of candidates with a higher score, so the
    best has rank 0, and equal scores have equal ranks. Only the order of the scores counts, which
    makes scorers with different ranges comparable.

    Args:
        scores: (S, N), higher is better.

    Returns:
        (N,) int64.
    """
    return (scores.unsqueeze(1) > scores.unsqueeze(2)).sum((0, 2))  # (S, N, N) before the sum


def order_by_rank_sum(scores: Tensor, tie_breaker: Tensor) -> Tensor:
    """Order candidates by the sum of their ranks.

    Args:
        scores: (S, N), higher is better.
        tie_breaker: (N,), of candidates with equal sums the one with the higher value is first.

    Returns:
        (N,) int64, indices of the candidates, best first. Candidates that are equal in both keep
        their order.
    """
    by_value = tie_breaker.argsort(descending=True, stable=True)  # (N,)
    return by_value[rank_sums(scores)[by_value].argsort(stable=True)]
