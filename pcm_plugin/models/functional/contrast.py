"""Refinement of image features by gradient descent on CLIP's contrastive loss.

Shapes: B images, S other texts, Dc width of CLIP's joint space.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.models.functional.precision import full_precision

# Texts at least this similar count as equal; features were rounded to float16.
_DUPLICATE_COSINE = 0.999


@full_precision
def contrastive_gradient(
    feats: Tensor, texts: Tensor, negatives: Tensor, allowed: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Compute InfoNCE from image to text (the image half of CLIP's loss) and its gradient.

    Args:
        feats: (B, Dc), image features.
        texts: (B, Dc), the text feature of each image.
        negatives: (S, Dc), features of other texts.
        allowed: (B, S) bool, True for texts that are negatives of an image.
        temperature: Temperature of the softmax over the products.

    Returns:
        Loss (B,) float32 of each image, and its gradient (B, Dc) with respect to that image.
    """
    positive = (feats * texts).sum(-1, keepdim=True)  # (B, 1)
    negative = (feats @ negatives.T).masked_fill(~allowed, -torch.inf)  # (B, S)
    logits = torch.cat([positive, negative], dim=1) / temperature  # (B, 1 + S)
    log_probs = logits.log_softmax(-1)
    probs = log_probs.exp()
    # Closed form: the expected text under the softmax minus the image's own text.
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
    """Refine features of synthetic images by gradient descent on their contrastive loss.

    A reconstruction of SynTIC's refinement (AAAI 2024, arXiv 2312.08865), whose loss is not
    published. The rationale is ours: a real image is closer to its caption than to other captions,
    and a synthetic image that misses a detail of the caption is less so. As training has no real
    images, the gradient of the contrastive loss is the available direction towards them. It is a
    difference of texts, and therefore keeps the modality gap of CLIP's space.

    Texts that equal the text of an image are not used as its negatives.

    Args:
        feats: (B, Dc), image features of any norm except 0.
        texts: (B, Dc), the caption of each image, any norm except 0.
        negatives: (S, Dc), texts of any captions, any norm except 0. They are the same for all
            images, so the result for an image does not depend on the batch.
        temperature: Temperature of the softmax over cosines.
        steps: Number of gradient steps.
        step_size: Factor of the gradient times the temperature. This product is a difference of
            mean texts, so the step size has the same meaning at every temperature.

    Returns:
        (B, Dc) float32 of norm 1.

    Raises:
        UserError: If the temperature is not above 0.
    """
    if temperature <= 0:
        raise UserError(f"`temperature` must be above 0, got `{temperature}`: pass e.g. 0.01")
    feats, texts, negatives = (F.normalize(x, dim=-1) for x in (feats, texts, negatives))
    allowed = texts @ negatives.T < _DUPLICATE_COSINE  # (B, S)
    for _ in range(steps):
        gradient = contrastive_gradient(feats, texts, negatives, allowed, temperature)[1]
        feats = F.normalize(feats - step_size * temperature * gradient, dim=-1)
    return feats
