"""Re-rank generated captions by CLIP."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.models.decoding.config import DecodingConfig
from pcm_plugin.models.decoding.hypothesis import CaptionHypothesis
from pcm_plugin.models.functional.rank_sum import order_by_rank_sum


@torch.no_grad()
def add_similarities(
    captions: list[list[CaptionHypothesis]],
    global_feats: Tensor,
    encode_text: Callable[[list[str]], Tensor],
    field: str = "similarity",
) -> list[list[CaptionHypothesis]]:
    """Compute the CLIP similarity of captions and their images.

    Args:
        captions: The captions of B images.
        global_feats: (B, Dc), CLIP image embeddings with any norm except 0.
        encode_text: CLIP's text encoder, n texts to (n, Dc).
        field: ``'similarity'``, or ``'second_similarity'`` for a second CLIP. Defaults to
            ``'similarity'``.

    Returns:
        The captions in the same order, with their similarity in ``field``.
    """
    texts = [hypothesis.caption for beams in captions for hypothesis in beams]
    owners = torch.tensor([i for i, beams in enumerate(captions) for _ in beams])  # (n,)
    text_feats = F.normalize(encode_text(texts).float(), dim=-1)  # (n, Dc)
    image_feats = F.normalize(global_feats.float(), dim=-1).to(text_feats.device)  # (B, Dc)
    image_feats = image_feats[owners.to(text_feats.device)]  # (n, Dc)
    cosines = iter((text_feats * image_feats).sum(-1).tolist())
    return [[h._replace(**{field: next(cosines)}) for h in beams] for beams in captions]


def rerank(captions: list[CaptionHypothesis], decoding: DecodingConfig) -> list[CaptionHypothesis]:
    """Order the captions of an image by their score and by their CLIP similarity to the image.

    Args:
        captions: Captions with their ``similarity`` and, for ``rerank='ranks'``, their
            ``mean_log_prob``; any ``second_similarity`` is ranked, too.
        decoding: ``rerank`` and ``rerank_weight`` set the order.

    Returns:
        The captions, best first.
    """
    if decoding.rerank == "ranks":
        scores = torch.tensor([_scores(hypothesis) for hypothesis in captions]).T  # (2 or 3, N)
        log_probs = torch.tensor([h.log_prob for h in captions])  # (N,)
        return [captions[i] for i in order_by_rank_sum(scores, log_probs).tolist()]

    def total(hypothesis: CaptionHypothesis) -> float:
        score = hypothesis.log_prob if hypothesis.score is None else hypothesis.score
        return score + decoding.rerank_weight * (hypothesis.similarity or 0)

    return sorted(captions, key=total, reverse=True)


def _scores(hypothesis: CaptionHypothesis) -> list[float]:
    """Return the values by which a caption is ranked."""
    scores = hypothesis.mean_log_prob, hypothesis.similarity, hypothesis.second_similarity
    return [score for score in scores if score is not None]
