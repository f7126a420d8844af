"""CLIPScore and RefCLIPScore (Hessel et al. 2021): captions against images, by a CLIP."""

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.evaluation.scorers import Scores

PROMPT = "A photo depicts"
"""What stands before every text (Hessel et al. 2021, Sec. 3)."""
WEIGHT = 2.5
"""Brings CLIPScore to about 0 to 1 (Eq. 1); cosines of texts with texts go without it."""
_BATCH = 256


class TextEncoder(Protocol):
    """What is needed of a CLIP, such as OpenCLIPBackbone."""

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embed n texts: (n, Dc)."""


@torch.inference_mode()
def clip_score(
    images: Tensor,
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    clip: TextEncoder,
) -> Scores:
    """Score captions by their images, and by their references too.

    ``CLIPScore = 2.5 max(cos(image, caption), 0)`` needs no reference. ``RefCLIPScore`` is the
    harmonic mean of ``CLIPScore`` and of the best ``max(cos(caption, reference), 0)``.

    Args:
        images: (n, Dc), CLIP's embeddings of the images, of any length but 0.
        captions: n captions as they are, not tokenized.
        references: At least one for each image.
        clip: The CLIP that embedded the images.

    Returns:
        ``CLIPScore`` and ``RefCLIPScore``, mean and each image, times 100.

    Raises:
        UserError: If the embeddings are not as wide as this CLIP's.
    """
    written = _embed(captions, clip)
    if images.shape != written.shape:
        raise UserError(
            f"image embeddings are {tuple(images.shape)} but this CLIP gives "
            f"{tuple(written.shape)}: name the CLIP that made the features"
        )
    seen = F.normalize(images.to(written.device).float(), dim=-1)
    to_image = WEIGHT * (seen * written).sum(-1).clamp(min=0)
    unique = {text: i for i, text in enumerate(dict.fromkeys(t for own in references for t in own))}
    known = _embed(list(unique), clip)
    to_reference = torch.stack(
        [
            (known[[unique[text] for text in own]] @ caption).max().clamp(min=0)
            for own, caption in zip(references, written, strict=True)
        ]
    )
    total = to_image + to_reference
    both = torch.where(total > 0, 2 * to_image * to_reference / total, torch.zeros_like(total))
    named = {"CLIPScore": 100 * to_image, "RefCLIPScore": 100 * both}
    return Scores(
        {name: float(values.double().mean()) for name, values in named.items()},
        {name: values.tolist() for name, values in named.items()},
    )


def _embed(texts: Sequence[str], clip: TextEncoder) -> Tensor:
    prompts = [f"{PROMPT} {text}" for text in texts]
    parts = [
        clip.encode_text(prompts[start : start + _BATCH])
        for start in range(0, len(prompts), _BATCH)
    ]
    return F.normalize(torch.cat(parts).float(), dim=-1)
