"""CLIP-weighted cross-entropy loss (paper, Eqs. 9-11, and the released code)."""

import torch
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.models.functional.losses import (
    batch_confidence,
    clip_weights,
    mean_over_ranks,
    sentence_confidence,
    smoothed_kl,
    word_confidence,
)
from pcm_plugin.registry import MODELS

GAMMA_TYPES = ("batch", "word", "sent", "none")


@MODELS.register_module()
class CLIPWeightedCELoss(nn.Module):
    """Label-smoothed word loss, weighted by the CLIP score of image and caption.

    The loss of each word, the KL divergence from the smoothed target, is multiplied by
    ``clamp(w * cos(image, caption), 0, 1)``. The paper averages the result over words
    (``gamma_type='none'``). The released code also multiplies by a confidence factor
    ``(1 - p_target) ** gamma``, which is not in the paper; all released models were trained with
    it:

    - ``'batch'``: mean of the losses times mean of the factors;
    - ``'word'``: mean of each loss times its own factor;
    - ``'sent'``: mean over all pairs of a loss and a factor of the same sentence.

    Means are over the words of the whole batch, across ranks, so that under DDP a step of several
    processes equals a step of one process. The value is the same on every rank.

    Args:
        label_smoothing: Probability mass on the other words, from 0 to below 1. Defaults to 0.1.
        clip_weight: w. Defaults to 2.5, as released for ViT-B/32. The paper uses 4, as released
            for ViT-L/14.
        gamma: Exponent of the confidence factor; 0 or less disables it. Defaults to 2.
        gamma_type: ``'batch'``, ``'word'``, ``'sent'`` or ``'none'``. Defaults to ``'batch'``.
        score_scale: Factor of the CLIP scores in the data samples. Defaults to 2.5.
        use_clip_weight: Whether to weight pairs by their CLIP score. Defaults to True.

    Raises:
        UserError: If ``gamma_type`` or ``label_smoothing`` is invalid.
    """

    def __init__(
        self,
        label_smoothing: float = 0.1,
        clip_weight: float = 2.5,
        gamma: float = 2.0,
        gamma_type: str = "batch",
        score_scale: float = 2.5,
        use_clip_weight: bool = True,
    ) -> None:
        super().__init__()
        if gamma_type not in GAMMA_TYPES:
            raise UserError(f"`gamma_type` must be one of {GAMMA_TYPES}, got {gamma_type!r}")
        if not 0 <= label_smoothing < 1:
            raise UserError(
                f"`label_smoothing` must be at least 0 and below 1, got `{label_smoothing}`: pass "
                "0.1 as in the released code"
            )
        self.label_smoothing = label_smoothing
        self.clip_weight = clip_weight
        self.gamma = gamma
        self.gamma_type = gamma_type if gamma > 0 else "none"
        self.score_scale = score_scale
        self.use_clip_weight = use_clip_weight

    def forward(self, logits: Tensor, targets: Tensor, clip_scores: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            logits: (B, T, V), or (n, V) for the n targets that are words, in order. Any
                floating-point dtype; the loss is computed in float32.
            targets: (B, T) int64, -1 for padding.
            clip_scores: (B,), ``score_scale`` times the cosine of each pair. Required with
                ``use_clip_weight``. Defaults to None.

        Returns:
            A scalar, float32.

        Raises:
            UserError: If ``clip_scores`` is required but missing.
        """
        valid = targets >= 0  # (B, T)
        logits = logits if logits.dim() == 2 else logits[valid]  # (n, V)
        losses, log_probs = smoothed_kl(logits, targets[valid], self.label_smoothing)
        sentences = valid.nonzero()[:, 0]  # (n,)
        if self.use_clip_weight:
            if clip_scores is None:
                raise UserError(
                    "`clip_scores` must be passed with use_clip_weight=True, got `None`: add a "
                    "clip_score to every data sample, or set use_clip_weight=False"
                )
            weights = clip_weights(clip_scores, self.clip_weight, self.score_scale)
            losses = losses * weights[sentences]
        if self.gamma_type == "none":
            return mean_over_ranks(losses)[0]
        # 1 - p, clamped above 0, where powers below 1 have no finite gradient.
        uncertainty = -log_probs.expm1()  # (n,)
        factors = uncertainty.clamp(min=torch.finfo(uncertainty.dtype).tiny) ** self.gamma
        if self.gamma_type == "batch":
            return batch_confidence(losses, factors)
        if self.gamma_type == "word":
            return word_confidence(losses, factors)
        return sentence_confidence(losses, factors, sentences, len(targets))
