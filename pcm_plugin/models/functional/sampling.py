"""Random choice of tokens."""

from torch import Tensor


def sample_top_p(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> Tensor:
    """Choose a token of each row from its most probable ones (Holtzman et al., 2020).

    The candidates of a row are the smallest number of most probable tokens whose probabilities sum
    to at least ``top_p``. The choice depends only on the row and its random number.

    Args:
        logits: (R, V) float32.
        uniform: (R,) float32, random numbers from 0 to less than 1.
        temperature: Divisor of the logits, more than 0. Small values favor probable tokens.
        top_p: More than 0, at most 1, which allows all tokens.

    Returns:
        (R,) int64, the tokens.
    """
    probs, tokens = (logits / temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    sums = probs.cumsum(-1)  # (R, V)
    possible = (probs > 0).sum(-1, keepdim=True)  # (R, 1)
    last = (sums < top_p).sum(-1, keepdim=True).minimum(possible - 1)  # (R, 1)
    threshold = uniform.unsqueeze(-1) * sums.gather(-1, last)  # (R, 1)
    # The product may be rounded up to the sum.
    chosen = (sums <= threshold).sum(-1, keepdim=True).minimum(last)  # (R, 1)
    return tokens.gather(-1, chosen).squeeze(-1)
