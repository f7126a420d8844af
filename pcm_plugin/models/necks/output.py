"""What a neck hands on."""

from typing import NamedTuple

from torch import Tensor


class NeckOutput(NamedTuple):
    """Tokens for a captioner, and how they came about.

    Shapes: B images, L tokens, D model width, N patches, K kept concepts, M text slots. The fields
    after ``mask`` are None when nothing was mixed; those after ``concept_probs`` when concepts were
    found for an image and not for its patches.

    Attributes:
        tokens: (B, L, D); the global token first, then, of PCMMixup, N patches, and at inference M
            text slots.
        mask: (B, L) bool, True for tokens that may be attended to.
        concept_ids: (B, K) int64, indices into the neck's ``concept_words``, the likeliest first;
            -1 where an image has fewer.
        concept_probs: (B, K) float32, their probabilities among all concepts; 0 where there is
            none.
        affinity: (B, N, K) float32, cosine of each patch with each kept concept.
        selected: (B, N) bool, the patches that are mixed with text.
        slots: (B, M) int64, the patch each text slot describes, ascending; -1 where unused.
    """

    tokens: Tensor
    mask: Tensor
    concept_ids: Tensor | None = None
    concept_probs: Tensor | None = None
    affinity: Tensor | None = None
    selected: Tensor | None = None
    slots: Tensor | None = None
