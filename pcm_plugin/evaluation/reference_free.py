"""Scores of captions of images that have no references.

They need the CLIP embeddings of images and captions, the concepts that CLIP finds in each image,
and the training captions. None of them tells whether a caption is correct: compare their values on
photos with those on images of known quality, such as the synthetic images of the training.
"""

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.evaluation.clip_score import WEIGHT
from pcm_plugin.evaluation.diversity import diversity


def reference_free_scores(
    images: Tensor,
    caption_feats: Tensor,
    captions: Sequence[Sequence[str]],
    train_captions: Collection[str],
    found: Sequence[Sequence[str]] | None = None,
    named: Sequence[Sequence[str]] | None = None,
) -> dict[str, float]:
    """Compute scores of captions without references.

    Args:
        images: (n, Dc), CLIP embeddings of the images, of any norm except 0.
        caption_feats: (n, Dc), CLIP embeddings of the captions, as of
            :func:`~pcm_plugin.evaluation.clip_score.embed_texts`.
        captions: Tokens of n captions, see :func:`~pcm_plugin.formats.languages.split_words`.
        train_captions: Tokens of the captions of the training set, each joined by spaces.
        found: Concepts that CLIP finds in each image. Defaults to None: there are no concepts.
        named: Those of them that the caption names, see
            :class:`~pcm_plugin.evaluation.concept_counts.ConceptFinder`. Defaults to None: they
            cannot be found in captions.

    Returns:
        - ``CLIPScore``: mean of ``2.5 max(cos(image, caption), 0)``, times 100;
        - ``CLIPScore of other images``: the same for each caption and all other images, which is
          what a caption unrelated to its image reaches; NaN for a single image;
        - ``margin``: the difference of these two;
        - ``concept coverage``: percentage of the concepts found in the images that their captions
          name; left out without ``found``, NaN without ``named`` or if none is found;
        - ``distinct captions``: percentage of different captions;
        - ``distinct words`` and ``length``: see :func:`~pcm_plugin.evaluation.diversity.diversity`;
        - ``copied``: percentage of captions that are training captions word for word.

    Raises:
        UserError: If there are no captions, or the numbers or widths differ.
    """
    if not captions or images.shape != caption_feats.shape or len(captions) != len(images):
        raise UserError(
            f"`images` and `caption_feats` must have the same shape (n, Dc) with n captions, at "
            f"least one, got {tuple(images.shape)}, {tuple(caption_feats.shape)} and "
            f"{len(captions)} captions: use the CLIP that computed the features"
        )
    image_feats = F.normalize(images.double(), dim=-1)
    text_feats = F.normalize(caption_feats.double(), dim=-1)
    varied = diversity(captions, train_captions).total
    own = WEIGHT * (image_feats * text_feats).sum(1).clamp(min=0)  # (n,)
    total = torch.zeros((), dtype=torch.float64)
    for start in range(0, len(image_feats), 1024):
        total += (WEIGHT * image_feats[start : start + 1024] @ text_feats.T).clamp(min=0).sum()
    count = len(captions)
    others = float(total - own.sum()) / (count * (count - 1)) if count > 1 else float("nan")
    scores = {
        "CLIPScore": 100 * float(own.mean()),
        "CLIPScore of other images": 100 * others,
        "margin": 100 * (float(own.mean()) - others),
    }
    if found is not None:
        counts = sum(map(len, found)), sum(map(len, named or []))
        is_known = named is not None and counts[0] > 0
        scores["concept coverage"] = 100 * counts[1] / counts[0] if is_known else float("nan")
    return {
        **scores,
        "distinct captions": 100 * varied["distinct-captions"] / count,
        "distinct words": varied["distinct-words"],
        "length": varied["length"],
        "copied": 100 - varied["novel"],
    }
