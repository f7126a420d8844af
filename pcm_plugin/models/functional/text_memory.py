"""Projection of image features onto a memory of text features (DeCap, Eq. 4)."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.models.functional.precision import full_precision


@full_precision
def project_onto_text_memory(
    feats: Tensor, text_memory: Iterable[Tensor], temperature: float
) -> Tensor:
    """Replace features by the softmax-weighted mean of a text memory.

    The softmax over the whole memory is computed chunk by chunk in one pass, so only one chunk and
    its similarities (B, S) are in memory at a time.

    Args:
        feats: (B, Dc), CLIP embeddings of any norm except 0.
        text_memory: Chunks (S, Dc) of any floating-point dtype, CLIP text embeddings of norm 1.
        temperature: Temperature of the softmax over cosines.

    Returns:
        (B, Dc) float32 of norm 1.

    Raises:
        UserError: If the temperature is not above 0, or the memory is empty.
    """
    if temperature <= 0:
        raise UserError(f"`temperature` must be above 0, got `{temperature}`: pass e.g. 0.01")
    queries = F.normalize(feats.float(), dim=-1) / temperature
    # Online softmax: the running maximum is subtracted to avoid overflow, and cancels.
    highest = queries.new_full((len(queries), 1), -torch.inf)
    total = torch.zeros_like(queries)
    # Counted on the host: testing the result would synchronize with the GPU.
    count = 0
    for chunk in filter(len, text_memory):
        count += len(chunk)
        texts = chunk.to(queries.device, torch.float32)
        logits = queries @ texts.T  # (B, S)
        peak = torch.maximum(highest, logits.amax(dim=1, keepdim=True))
        total = total * (highest - peak).exp() + (logits - peak).exp() @ texts
        highest = peak
    if count == 0:
        raise UserError("the text memory must not be empty: pass at least one text")
    return F.normalize(total, dim=-1)
