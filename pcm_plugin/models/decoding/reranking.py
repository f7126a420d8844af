"""Re-rank generated captions by CLIP."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.models.decoding.hypothesis import CaptionHypothesis


@torch.no_grad()
def add_similarities(
    captions: list[list[CaptionHypothesis]],
    global_feats: Tensor,
    encode_text: Callable[[list[str]], Tensor],
) -> list[list[CaptionHypothesis]]:
    """Compute the CLIP similarity of captions and their images.

    Args:
        captions: The captions of B images.
        global_feats: (B, Dc), CLIP image embeddings with any norm except 0.
        encode_text: CLIP's text encoder, n texts to (n, Dc).

    Returns:
        The captions in the same order, with their ``similarity``.
    """
    texts = [hypothesis.caption for beams in captions for hypothesis in beams]
    owners = torch.tensor([i for i, beams in enumerate(captions) for _ in beams])  # (n,)
    text_feats = F.normalize(encode_text(texts).float(), dim=-1)  # (n, Dc)
    image_feats = F.normalize(global_feats.float(), dim=-1).to(text_feats.device)  # (B, Dc)
    image_feats = image_feats[owners.to(text_feats.device)]  # (n, Dc)
    cosines = iter((text_feats * image_feats).sum(-1).tolist())
    return [[h._replace(similarity=next(cosines)) for h in beams] for beams in captions]


def rerank(captions: list[CaptionHypothesis], weight: float) -> list[CaptionHypothesis]:
    """Order the captions of an image by their score and by their CLIP similarity to the image.

    Args:
        captions: Captions with their ``similarity``.
        weight: Weight of the similarity relative to the score.

    Returns:
        The captions by falling score plus ``weight`` times similarity.
    """

    def total(hypothesis: CaptionHypothesis) -> float:
        score = hypothesis.log_prob if hypothesis.score is None else hypothesis.score
        return score + weight * (hypothesis.similarity or 0)

    return sorted(captions, key=total, reverse=True)
