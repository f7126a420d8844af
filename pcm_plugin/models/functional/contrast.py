"""Image features moved along CLIP's own contrastive objective.

Shapes: B images, S other texts, Dc width of CLIP's joint space.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.models.functional.precision import full_precision

# Cosine of a text and itself where both were rounded to float16.
_DUPLICATE_COSINE = 0.999


@full_precision
def contrastive_gradient(
    feats: Tensor, texts: Tensor, negatives: Tensor, allowed: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """InfoNCE from image to text (the image's half of CLIP's loss), and its gradient.

    Args:
        feats: (B, Dc), the images.
        texts: (B, Dc), the text of each.
        negatives: (S, Dc), other texts.
        allowed: (B, S) bool, the others that count for an image.
        temperature: Of the softmax over the products.

    Returns:
        Loss (B,) float32 of each image, and its gradient (B, Dc) with respect to that image.
    """
    own = (feats * texts).sum(-1, keepdim=True)
    others = (feats @ negatives.T).masked_fill(~allowed, -torch.inf)
    log_probs = (torch.cat([own, others], dim=1) / temperature).log_softmax(-1)
    probs = log_probs.exp()
    # In closed form: what the softmax expects to see, less what is there.
    gradient = probs[:, 1:] @ negatives - (1 - probs[:, :1]) * texts
    return -log_probs[:, 0], gradient / temperature


@full_precision
def refine_by_contrast(
    feats: Tensor,
    texts: Tensor,
    negatives: Tensor,
    temperature: float,
    steps: int,
    step_size: float,
) -> Tensor:
    """Move features of synthetic images until their own texts stand out among others.

    A reconstruction of SynTIC's refinement (AAAI 2024, arXiv 2312.08865), whose loss is published
    nowhere. The reasoning is ours: a real image of a caption is nearer to it than to other
    captions; a synthetic one that misses a detail is so less. Training has no real image, so that
    the gradient of that contrast is the way to the real side that is left. It is a difference of
    texts, which leaves alone what tells images from texts in CLIP's space.

    A text that equals an image's own is no negative for it.

    Args:
        feats: (B, Dc), of any length but 0.
        texts: (B, Dc), the caption of each, of any length but 0.
        negatives: (S, Dc), texts of any captions, of any length but 0; the same for all images, so
            that none depends on which others are beside it.
        temperature: Of the softmax over cosines.
        steps: Gradient steps.
        step_size: A step is that much of the gradient times the temperature, a difference of mean
            texts, so that the size means the same at any temperature.

    Returns:
        (B, Dc) float32 of length 1.

    Raises:
        UserError: If the temperature is not above 0.
    """
    if temperature <= 0:
        raise UserError(f"temperature={temperature}: give more than 0")
    feats, texts, negatives = (F.normalize(x, dim=-1) for x in (feats, texts, negatives))
    allowed = texts @ negatives.T < _DUPLICATE_COSINE
    for _ in range(steps):
        gradient = contrastive_gradient(feats, texts, negatives, allowed, temperature)[1]
        feats = F.normalize(feats - step_size * temperature * gradient, dim=-1)
    return feats
