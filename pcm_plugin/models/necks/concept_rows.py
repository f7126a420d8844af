"""What a neck keeps of the concepts that it looks for."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def check_concepts(
    words: Sequence[str], embeddings: Tensor, clip_dim: int, top_concepts: int
) -> Tensor:
    """Concepts that fit a neck, as directions.

    Args:
        words: C words.
        embeddings: (C, Dc), their CLIP text embeddings, of any length but 0.
        clip_dim: The neck's Dc.
        top_concepts: How many of them the neck takes for an image.

    Returns:
        (C, Dc) float32 of length 1, a copy.

    Raises:
        ValueError: If the sizes do not agree with each other or with the neck.
    """
    if embeddings.shape != (len(words), clip_dim):
        raise ValueError(
            f"concept embeddings are {tuple(embeddings.shape)} but {len(words)} words and "
            f"clip_dim={clip_dim} need {(len(words), clip_dim)}: "
            "make them with the CLIP that made the features"
        )
    if len(words) < top_concepts:
        raise ValueError(
            f"{len(words)} concepts but top_concepts={top_concepts}: give more concepts or lower it"
        )
    return F.normalize(embeddings.detach().float(), dim=-1)
