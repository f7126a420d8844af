"""Retrieval of the concepts of an image (paper, Eq. 1)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.models.functional.precision import full_precision


def prepare_concepts(
    words: Sequence[str], embeddings: Tensor, clip_dim: int, top_concepts: int
) -> Tensor:
    """Check and normalize the embeddings of concepts for :func:`.retrieve_concepts`.

    Args:
        words: C words.
        embeddings: (C, Dc), their CLIP text embeddings, of any norm except 0.
        clip_dim: Dc.
        top_concepts: K, the number of concepts to retrieve.

    Returns:
        (C, Dc) float32 of norm 1, a copy.

    Raises:
        UserError: If the sizes do not agree.
    """
    if embeddings.shape != (len(words), clip_dim):
        raise UserError(
            f"concept embeddings must be {(len(words), clip_dim)} for {len(words)} words and "
            f"clip_dim={clip_dim}, got {tuple(embeddings.shape)}: "
            "compute them with the CLIP that computed the features"
        )
    if len(words) < top_concepts:
        raise UserError(
            f"`top_concepts` must be at most the {len(words)} concepts, got `{top_concepts}`: "
            "reduce it or add concepts"
        )
    return F.normalize(embeddings.detach().float(), dim=-1)


@full_precision
def concept_probabilities(global_feats: Tensor, concepts: Tensor, temperature: float) -> Tensor:
    """Compute the probability of each concept given an image.

    Args:
        global_feats: (B, Dc), CLIP image embeddings of any norm.
        concepts: (C, Dc), CLIP text embeddings of norm 1. Normalizing thousands of them for each
            batch would cost more than the products.
        temperature: Temperature of the softmax over the C concepts.

    Returns:
        (B, C) float32.
    """
    # On a CPU, (C, Dc) @ (Dc, B) takes half the time of (B, Dc) @ (Dc, C) for small B.
    similarity = (concepts @ F.normalize(global_feats, dim=-1).t()).t().contiguous()  # (B, C)
    return similarity.div_(temperature).softmax(-1)


@full_precision
def retrieve_concepts(
    global_feats: Tensor,
    concepts: Tensor,
    top_concepts: int,
    threshold: float,
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Retrieve the K most probable concepts of each image.

    Args:
        global_feats: (B, Dc), CLIP image embeddings of any norm.
        concepts: (C, Dc), CLIP text embeddings of norm 1.
        top_concepts: K, at most C.
        threshold: Concepts whose probability is not above it are masked: their vector is zero, and
            so is their affinity with every patch (released code).
        temperature: Temperature of the softmax over the C concepts.

    Returns:
        Concept indices (B, K) int64 in descending order of probability; probabilities (B, K)
        float32, not masked; concept vectors (B, K, Dc) float32 of norm 1, or 0 where masked.

    Raises:
        UserError: If K is larger than C.
    """
    if top_concepts > len(concepts):
        raise UserError(
            f"`top_concepts` must be at most the {len(concepts)} concepts, got `{top_concepts}`: "
            "reduce it or add concepts"
        )
    # top-k of the probabilities, not of the similarities: at this temperature some underflow to 0,
    # and the captions of the released code depend on how topk breaks these ties.
    all_probs = concept_probabilities(global_feats, concepts, temperature)  # (B, C)
    probs, ids = all_probs.topk(top_concepts, dim=-1)  # (B, K) each
    vectors = concepts[ids].mul_((probs > threshold).unsqueeze(-1))  # (B, K, Dc)
    return ids, probs, vectors


def inject_noise(feats: Tensor, variance: float) -> Tensor:
    """Normalize, add Gaussian noise, and normalize again (CapDec; released code).

    Args:
        feats: (..., Dc), of any norm except 0.
        variance: Variance of the noise in each component; 0 only normalizes.

    Returns:
        The same shape, each vector of norm 1.
    """
    feats = F.normalize(feats, dim=-1)
    if variance == 0:
        return feats
    return F.normalize(feats + torch.randn_like(feats) * variance**0.5, dim=-1)
