"""Output of a neck."""

from typing import NamedTuple

from torch import Tensor


class NeckOutput(NamedTuple):
    """Tokens for a captioner, and the concepts and patches behind them.

    Shapes: B images, L tokens, D model width, N patches, K retrieved concepts, M text slots. The
    fields after ``mask`` are None if no concepts were retrieved; those after ``concept_probs`` are
    None if no patches were matched with concepts.

    Attributes:
        tokens: (B, L, D). The global token comes first; PCMMixup appends N patches and, at
            inference or with ``mix='append'``, M text slots.
        mask: (B, L) bool, True for tokens that may be attended to.
        concept_ids: (B, K) int64, indices into the neck's ``concept_words`` by falling probability;
            -1 where an image has fewer.
        concept_probs: (B, K) float32, their probabilities among all concepts; 0 for padding.
        affinity: (B, N, K) float32, cosine similarity of each patch with each retrieved concept.
        selected: (B, N) bool, the patches that are mixed with text.
        slots: (B, M) int64, the patch of each text slot, ascending; -1 where unused.
            With ``mix='drop'``, the selected patches; the tokens contain no text slots then.
    """

    tokens: Tensor
    mask: Tensor
    concept_ids: Tensor | None = None
    concept_probs: Tensor | None = None
    affinity: Tensor | None = None
    selected: Tensor | None = None
    slots: Tensor | None = None
