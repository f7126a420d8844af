"""Re-rank generated captions by CLIP."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.models.decoding.hypothesis import CaptionHypothesis


@torch.no_grad()
def rerank(
    captions: list[list[CaptionHypothesis]],
    global_feats: Tensor,
    encode_text: Callable[[list[str]], Tensor],
    weight: float,
) -> list[list[CaptionHypothesis]]:
    """Order captions by their score and by their CLIP similarity to the image.

    Args:
        captions: The captions of B images.
        global_feats: (B, Dc), CLIP image embeddings with any norm except 0.
        encode_text: CLIP's text encoder, n texts to (n, Dc).
        weight: Weight of the cosine similarity relative to the score.

    Returns:
        The captions of each image by falling score plus ``weight`` times similarity.
    """
    texts = [hypothesis.caption for beams in captions for hypothesis in beams]
    owners = torch.tensor([i for i, beams in enumerate(captions) for _ in beams])  # (n,)
    text_feats = F.normalize(encode_text(texts).float(), dim=-1)  # (n, Dc)
    image_feats = F.normalize(global_feats.float(), dim=-1).to(text_feats.device)  # (B, Dc)
    image_feats = image_feats[owners.to(text_feats.device)]  # (n, Dc)
    cosines = iter((text_feats * image_feats).sum(-1).tolist())

    def total(hypothesis: CaptionHypothesis) -> float:
        score = hypothesis.log_prob if hypothesis.score is None else hypothesis.score
        return score + weight * (hypothesis.similarity or 0)

    return [
        sorted((h._replace(similarity=next(cosines)) for h in beams), key=total, reverse=True)
        for beams in captions
    ]
