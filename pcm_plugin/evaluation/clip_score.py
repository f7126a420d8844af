"""CLIPScore and RefCLIPScore (Hessel et al. 2021): similarity of captions to images."""

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.evaluation.scorers import Scores

PROMPT = "A photo depicts"
"""Prefix of every text (Hessel et al. 2021, Sec. 3)."""
WEIGHT = 2.5
"""Scale of CLIPScore (Eq. 1), which brings it to about 0 to 1. Text-text cosines have no scale."""
_BATCH = 256


class TextEncoder(Protocol):
    """Text encoder of a CLIP, such as OpenCLIPBackbone."""

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embed n texts as (n, Dc)."""


@torch.inference_mode()
def clip_score(
    images: Tensor,
    captions: Sequence[str],
    references: Sequence[Sequence[str]] | None,
    clip: TextEncoder,
) -> Scores:
    """Compute CLIPScore and RefCLIPScore.

    ``CLIPScore = 2.5 max(cos(image, caption), 0)`` needs no references. ``RefCLIPScore`` is the
    harmonic mean of ``CLIPScore`` and the largest ``max(cos(caption, reference), 0)``.

    Args:
        images: (n, Dc), CLIP embeddings of the images. They need not be normalized.
        captions: n captions, not tokenized.
        references: References of each image, at least one; None to compute only ``CLIPScore``.
        clip: The CLIP that embedded the images.

    Returns:
        ``CLIPScore`` and, with references, ``RefCLIPScore``, mean and per image, multiplied by 100.

    Raises:
        UserError: If the embeddings of images and captions differ in width.
    """
    caption_feats = embed_texts(captions, clip)  # (n, Dc)
    if images.shape != caption_feats.shape:
        raise UserError(
            f"image embeddings must have the shape {tuple(caption_feats.shape)} of this CLIP's "
            f"text embeddings, got {tuple(images.shape)}: use the CLIP that computed the features"
        )
    image_feats = F.normalize(images.to(caption_feats.device).float(), dim=-1)
    image_score = WEIGHT * (image_feats * caption_feats).sum(-1).clamp(min=0)  # (n,)
    named = {"CLIPScore": 100 * image_score}
    if references is not None:
        reference_score = _reference_score(caption_feats, references, clip)
        total = image_score + reference_score
        mean = torch.where(
            total > 0, 2 * image_score * reference_score / total, torch.zeros_like(total)
        )
        named["RefCLIPScore"] = 100 * mean
    return Scores(
        {name: float(values.double().mean()) for name, values in named.items()},
        {name: values.tolist() for name, values in named.items()},
    )


def _reference_score(
    captions: Tensor, references: Sequence[Sequence[str]], clip: TextEncoder
) -> Tensor:
    """Return the largest cosine of each caption (n, Dc) with its references, at least 0, (n,)."""
    unique = {t: i for i, t in enumerate(dict.fromkeys(t for texts in references for t in texts))}
    feats = embed_texts(list(unique), clip)
    return torch.stack(
        [
            (feats[[unique[text] for text in texts]] @ caption).max().clamp(min=0)
            for texts, caption in zip(references, captions, strict=True)
        ]
    )


def embed_texts(texts: Sequence[str], clip: TextEncoder) -> Tensor:
    """Embed texts with the prefix of CLIPScore.

    Args:
        texts: n texts, at least one.
        clip: The CLIP.

    Returns:
        (n, Dc) float32, L2-normalized.
    """
    prompts = [f"{PROMPT} {text}" for text in texts]
    parts = [
        clip.encode_text(prompts[start : start + _BATCH])
        for start in range(0, len(prompts), _BATCH)
    ]
    return F.normalize(torch.cat(parts).float(), dim=-1)
