"""The CLIP-weighted cross entropy (paper, Eqs. 9-11) and its released form."""

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
    """Label-smoothed word loss, weighted by how well image and caption agree.

    Each word's loss, the KL divergence from the smoothed target, is multiplied by its pair's
    ``clamp(w * cos(image, caption), 0, 1)``. The paper averages that over the words
    (``gamma_type='none'``). The released code multiplies it by a confidence factor
    ``(1 - p_target) ** gamma``, which no equation shows and every released model was trained with:

    - ``'batch'``: mean of the losses times mean of the factors;
    - ``'word'``: mean of each loss times its own factor;
    - ``'sent'``: mean over all pairs of a loss and a factor of one sentence.

    Means are over the valid words of the whole batch, across ranks, so that under DDP a step of
    several processes equals that of one. The value is the same on every rank.

    Args:
        label_smoothing: Mass on the other words, from 0 to below 1. Defaults to 0.1.
        clip_weight: w. Defaults to 2.5, as released for ViT-B/32; the paper says 4, as released
            for ViT-L/14.
        gamma: Exponent of the confidence factor; 0 or less switches it off. Defaults to 2.
        gamma_type: ``'batch'``, ``'word'``, ``'sent'`` or ``'none'``. Defaults to ``'batch'``.
        score_scale: What the given CLIP scores were multiplied by. Defaults to 2.5.
        use_clip_weight: Whether pairs are weighted at all. Defaults to True.

    Raises:
        UserError: If ``gamma_type`` or ``label_smoothing`` is none of these.
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
            raise UserError(f"gamma_type={gamma_type!r}: choose one of {GAMMA_TYPES}")
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing={label_smoothing}: give 0 to below 1")
        self.label_smoothing = label_smoothing
        self.clip_weight = clip_weight
        self.gamma = gamma
        self.gamma_type = gamma_type if gamma > 0 else "none"
        self.score_scale = score_scale
        self.use_clip_weight = use_clip_weight

    def forward(self, logits: Tensor, targets: Tensor, clip_scores: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            logits: (B, T, V), or (n, V) of the n targets that are words alone, in their order; of
                any floating type, the loss is computed in float32.
            targets: (B, T) int64, -1 where there is no word.
            clip_scores: (B,), ``score_scale`` times the cosine of each pair. Needed if pairs are
                weighted.

        Returns:
            A scalar, float32.

        Raises:
            UserError: If the scores are needed and missing.
        """
        valid = targets >= 0
        logits = logits if logits.dim() == 2 else logits[valid]
        losses, log_probs = smoothed_kl(logits, targets[valid], self.label_smoothing)
        sentences = valid.nonzero()[:, 0]
        if self.use_clip_weight:
            if clip_scores is None:
                raise UserError(
                    "use_clip_weight=True but no clip_scores came: give every data sample its "
                    "clip_score, or set use_clip_weight=False"
                )
            weights = clip_weights(clip_scores, self.clip_weight, self.score_scale)
            losses = losses * weights[sentences]
        if self.gamma_type == "none":
            return mean_over_ranks(losses)[0]
        # 1 - p, kept above 0, where a power below 1 has no gradient.
        doubt = -log_probs.expm1()
        factors = doubt.clamp(min=torch.finfo(doubt.dtype).tiny) ** self.gamma
        if self.gamma_type == "batch":
            return batch_confidence(losses, factors)
        if self.gamma_type == "word":
            return word_confidence(losses, factors)
        return sentence_confidence(losses, factors, sentences, len(targets))
