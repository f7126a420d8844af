"""Scores of captions of images that have no references.

They need the CLIP embeddings of images and captions, the concepts that CLIP finds in each image,
and the training captions. None of them tells whether a caption is correct: compare their values on
photos with those on images of known quality, such as the synthetic images of the training.
"""

from collections import Counter
from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.evaluation.clip_score import WEIGHT
from pcm_plugin.evaluation.diversity import diversity
from pcm_plugin.formats.tokenize import singular, tokenize


def reference_free_scores(
    images: Tensor,
    caption_feats: Tensor,
    captions: Sequence[str],
    found: Sequence[Sequence[str]] | None,
    train_captions: Collection[str],
) -> dict[str, float]:
    """Compute scores of captions without references.

    Args:
        images: (n, Dc), CLIP embeddings of the images, of any norm except 0.
        caption_feats: (n, Dc), CLIP embeddings of the captions, as of
            :func:`~pcm_plugin.evaluation.clip_score.embed_texts`.
        captions: n captions.
        found: Concepts that CLIP finds in each image; None if there are no concepts.
        train_captions: Captions of the training set, each as :func:`.normalized` returns it.

    Returns:
        - ``CLIPScore``: mean of ``2.5 max(cos(image, caption), 0)``, times 100;
        - ``CLIPScore of other images``: the same for each caption and all other images, which is
          what a caption unrelated to its image reaches; NaN for a single image;
        - ``margin``: the difference of these two;
        - ``concept coverage``: percentage of the concepts found in the images that their captions
          name, see :func:`named_concepts`; left out without ``found``, NaN if none is found;
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
    tokens = [tokenize(caption) for caption in captions]
    varied = diversity(tokens, train_captions).total
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
        pairs = zip(captions, found, strict=True)
        named = sum(len(named_concepts(text, words)) for text, words in pairs)
        number = sum(len(words) for words in found)
        scores["concept coverage"] = 100 * named / number if number else float("nan")
    return {
        **scores,
        "distinct captions": 100 * varied["distinct-captions"] / count,
        "distinct words": varied["distinct-words"],
        "length": varied["length"],
        "copied": 100 - varied["novel"],
    }


def normalized(caption: str) -> str:
    """Return a caption in lower case without punctuation, for comparison word for word."""
    return " ".join(tokenize(caption))


def named_concepts(caption: str, concepts: Sequence[str]) -> list[str]:
    """Return those concepts that a caption names.

    A concept is named if its words occur next to each other in the caption; the last of them may
    be in the plural of English (``two cars`` names ``car``). Synonyms do not count.

    Args:
        caption: The caption.
        concepts: Words or phrases.
    """
    words = tokenize(caption)
    singulars = [singular(word) for word in words]
    named = []
    for concept in concepts:
        *first, last = tokenize(concept) or [""]
        length = len(first)
        for end in range(length, len(words)):
            if words[end - length : end] == first and last in (words[end], singulars[end]):
                named.append(concept)
                break
    return named


def concept_shares(found: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return the percentage of the images in which each concept is found.

    Args:
        found: Concepts of each image, at least one image.
    """
    counts = Counter(word for words in found for word in dict.fromkeys(words))
    return {word: 100 * count / len(found) for word, count in counts.items()}


def frequent_only_in(
    shares: dict[str, float], others: dict[str, float], minimum: float = 5.0, factor: float = 5.0
) -> list[tuple[str, float, float]]:
    """Return concepts that are frequent in one set and not in another.

    Args:
        shares: Percentage of images with each concept, of the first set.
        others: The same of the second set.
        minimum: Minimum percentage in the first set. Defaults to 5.
        factor: Minimum ratio of the two percentages. Defaults to 5.

    Returns:
        Concept and its two percentages, those with the largest difference first.
    """
    chosen = [
        (word, share, others.get(word, 0.0))
        for word, share in shares.items()
        if share >= minimum and share >= factor * others.get(word, 0.0)
    ]
    return sorted(chosen, key=lambda row: (row[2] - row[1], row[0]))
