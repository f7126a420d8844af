"""Generated captions with their scores."""

from collections.abc import Callable
from typing import NamedTuple

from pcm_plugin.models.decoding.config import DecodingConfig
from pcm_plugin.models.functional.beam_search import BeamOutput


class CaptionHypothesis(NamedTuple):
    """A generated caption.

    Attributes:
        caption: Its text.
        log_prob: Its log-probability.
        similarity: Cosine similarity of CLIP's embeddings of image and caption, if captions were
            re-ranked.
        score: Score of the beam search if it differs from ``log_prob``, i.e. with a length penalty.
        mean_log_prob: Log-probability per token, including the end token, if captions were
            re-ranked by ranks.
        second_similarity: Cosine similarity of the embeddings of ``rerank_clip``, if there is one.
    """

    caption: str
    log_prob: float
    similarity: float | None = None
    score: float | None = None
    mean_log_prob: float | None = None
    second_similarity: float | None = None


def collect_captions(
    output: BeamOutput, decode: Callable[[list[int]], str], decoding: DecodingConfig
) -> list[list[CaptionHypothesis]]:
    """Convert the output of a beam search to captions.

    Args:
        output: The R best sequences of B images.
        decode: Maps the token ids of a caption, including the end token and padding, to text.
        decoding: Settings of the search.

    Returns:
        The R captions of each image, best first.
    """
    has_penalty, by_ranks = decoding.length_penalty != 0, decoding.rerank == "ranks"
    log_probs = output.log_probs.sum(-1) if has_penalty else output.scores  # (B, R)
    means = log_probs / output.lengths  # (B, R)
    columns = output.ids, log_probs, output.scores, means
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        [
            CaptionHypothesis(
                decode(ids),
                log_prob,
                score=score if has_penalty else None,
                mean_log_prob=mean if by_ranks else None,
            )
            for ids, log_prob, score, mean in zip(*row, strict=True)
        ]
        for row in rows
    ]
