"""Generated captions with their scores."""

from collections.abc import Callable
from typing import NamedTuple

from pcm_plugin.models.functional.beam_search import BeamOutput


class CaptionHypothesis(NamedTuple):
    """A generated caption.

    Attributes:
        caption: Its text.
        log_prob: Its log-probability.
        similarity: Cosine similarity of CLIP's embeddings of image and caption, if captions were
            re-ranked.
        score: Score of the beam search if it differs from ``log_prob``, i.e. with a length penalty.
    """

    caption: str
    log_prob: float
    similarity: float | None = None
    score: float | None = None


def collect_captions(
    output: BeamOutput, decode: Callable[[list[int]], str], length_penalty: float
) -> list[list[CaptionHypothesis]]:
    """Convert the output of a beam search to captions.

    Args:
        output: The R best sequences of B images.
        decode: Maps the token ids of a caption, including the end token and padding, to text.
        length_penalty: Length penalty of the search; 0 if scores are log-probabilities.

    Returns:
        The R captions of each image, best first.
    """
    log_probs = output.log_probs.sum(-1) if length_penalty else output.scores  # (B, R)
    rows = zip(output.ids.tolist(), log_probs.tolist(), output.scores.tolist(), strict=True)
    return [
        [
            CaptionHypothesis(decode(ids), log_prob, score=score if length_penalty else None)
            for ids, log_prob, score in zip(*row, strict=True)
        ]
        for row in rows
    ]
