"""Salient concepts of an image (paper, Eq. 1)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.models.functional.precision import full_precision


def prepare_concepts(
    words: Sequence[str], embeddings: Tensor, clip_dim: int, top_concepts: int
) -> Tensor:
    """Concepts as :func:`retrieve_concepts` wants them.

    Args:
        words: C words.
        embeddings: (C, Dc), their CLIP text embeddings, of any length but 0.
        clip_dim: Dc.
        top_concepts: K, how many are to be found.

    Returns:
        (C, Dc) float32 of length 1, a copy.

    Raises:
        UserError: If the sizes do not agree.
    """
    if embeddings.shape != (len(words), clip_dim):
        raise UserError(
            f"concept embeddings are {tuple(embeddings.shape)} but {len(words)} words and "
            f"clip_dim={clip_dim} need {(len(words), clip_dim)}: "
            "make them with the CLIP that made the features"
        )
    if len(words) < top_concepts:
        raise UserError(
            f"{len(words)} concepts but top_concepts={top_concepts}: give more concepts or lower it"
        )
    return F.normalize(embeddings.detach().float(), dim=-1)


@full_precision
def concept_probabilities(global_feats: Tensor, concepts: Tensor, temperature: float) -> Tensor:
    """How likely each concept is in an image.

    Args:
        global_feats: (B, Dc), CLIP image embeddings of any length.
        concepts: (C, Dc), CLIP text embeddings of length 1: to normalise thousands of them for each
            batch would cost more than to compare them.
        temperature: Of the softmax over the C concepts.

    Returns:
        (B, C) float32.
    """
    # Concepts first: on a CPU their product with a few images takes half the time that way round.
    similarity = (concepts @ F.normalize(global_feats, dim=-1).t()).t().contiguous()
    return similarity.div_(temperature).softmax(-1)


@full_precision
def retrieve_concepts(
    global_feats: Tensor,
    concepts: Tensor,
    top_concepts: int,
    threshold: float,
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the concepts whose texts are nearest to an image.

    Args:
        global_feats: (B, Dc), CLIP image embeddings of any length.
        concepts: (C, Dc), CLIP text embeddings of length 1.
        top_concepts: K, at most C.
        threshold: A concept whose probability is not above it is masked: its vector is zero and so
            is its affinity with every patch (released code).
        temperature: Of the softmax over the C concepts.

    Returns:
        Concept indices (B, K) int64 by falling probability; probabilities (B, K) float32, not
        masked; concept vectors (B, K, Dc) float32, of length 1, or 0 where masked.

    Raises:
        UserError: If K is larger than C.
    """
    if top_concepts > len(concepts):
        raise UserError(
            f"top_concepts={top_concepts} but there are {len(concepts)} concepts: "
            "lower it or give more concepts"
        )
    likely = concept_probabilities(global_feats, concepts, temperature)
    # The k best of the probabilities, not of the similarities: at this temperature some underflow
    # to equal zeros, and which of those is taken shows in the released captions.
    probs, ids = likely.topk(top_concepts, dim=-1)
    kept = concepts[ids].mul_((probs > threshold).unsqueeze(-1))
    return ids, probs, kept


def inject_noise(feats: Tensor, variance: float) -> Tensor:
    """Perturb a direction: normalise, add Gaussian noise, normalise (CapDec; released code).

    Args:
        feats: (..., Dc).
        variance: Of the noise in each component; 0 only normalises.

    Returns:
        Same shape, each vector of length 1.
    """
    feats = F.normalize(feats, dim=-1)
    if variance == 0:
        return feats
    return F.normalize(feats + torch.randn_like(feats) * variance**0.5, dim=-1)
