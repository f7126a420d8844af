"""The model without the optimizations of the package, as a baseline.

Captions are padded to the maximum length, logits are computed for padding too, attention and
dropout use PyTorch's elementary operations, the smoothed target is a tensor, and so is the
confidence factor of all pairs of words. Without dropout it computes the same loss.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcm_plugin.models import PCMNet
from pcm_plugin.models.layers import Dropout, FeedForward, transformer


def make_unoptimized(model: PCMNet) -> None:
    """Replace the optimized parts of a model, in the whole process."""
    transformer.attention = _attention
    Dropout.forward = lambda self, x: F.dropout(x, self.p, self.training)  # type: ignore
    FeedForward.forward = _feed_forward  # type: ignore[method-assign]
    encode, longest = model.vocabulary.encode, model.decoding.max_len
    model.vocabulary.encode_batch = lambda captions, _: tuple(  # type: ignore[method-assign]
        map(torch.stack, zip(*(encode(caption, longest) for caption in captions), strict=True))
    )
    predict = model.decoder.forward
    model.decoder.forward = lambda ids, encoder_out, mask, lengths: predict(ids, encoder_out, mask)
    model.loss_module = _Loss(model.loss_module)


def _attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    causal: bool,
    dropout_p: float,
) -> Tensor:
    scores = queries @ keys.transpose(-2, -1) / queries.shape[-1] ** 0.5
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return F.dropout(scores.softmax(-1), dropout_p) @ values


def _feed_forward(self: FeedForward, x: Tensor) -> Tensor:
    hidden = self.dropout(F.relu(self.fc1(x)))
    return self.norm(x + self.dropout(self.fc2(hidden)))


class _Loss(nn.Module):
    def __init__(self, settings: Any) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, logits: Tensor, targets: Tensor, clip_scores: Tensor) -> Tensor:
        settings, valid = self.settings, targets >= 0
        log_probs = logits.log_softmax(-1)[valid]
        words = targets[valid].unsqueeze(1)
        smoothed = torch.full_like(log_probs, settings.label_smoothing / (log_probs.shape[1] - 1))
        smoothed.scatter_(1, words, 1 - settings.label_smoothing)
        losses = F.kl_div(log_probs, smoothed, reduction="none").sum(1)
        weights = (clip_scores / settings.score_scale * settings.clip_weight).clamp(0, 1)
        losses = losses * weights[valid.nonzero()[:, 0]]
        return (losses * (1 - log_probs.gather(1, words).exp()) ** settings.gamma).mean()
