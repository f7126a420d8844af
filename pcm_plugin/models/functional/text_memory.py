"""Images in the words of a corpus: projection onto a memory of texts (DeCap, Eq. 4)."""

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
    """Put features together from the texts that are like them.

    A softmax over the whole memory, taken chunk by chunk in one pass: what is held at a time is one
    chunk and its (B, S) similarities.

    Args:
        feats: (B, Dc), CLIP embeddings of any length but 0.
        text_memory: Chunks (S, Dc) of any floating type, CLIP text embeddings of length 1.
        temperature: Of the softmax over cosines.

    Returns:
        (B, Dc) float32 of length 1: the mean of the memory, weighted by the softmax.

    Raises:
        UserError: If the temperature is not above 0, or the memory is empty.
    """
    if temperature <= 0:
        raise UserError(f"temperature={temperature}: give more than 0")
    queries = F.normalize(feats.float(), dim=-1) / temperature
    # A common factor of all weights is lost in the end; this one keeps them from overflowing.
    highest = queries.new_full((len(queries), 1), -torch.inf)
    total = torch.zeros_like(queries)
    # Counted here: asking the result would have a CPU wait for the GPU in each iteration.
    count = 0
    for chunk in filter(len, text_memory):
        count += len(chunk)
        texts = chunk.to(queries.device, torch.float32)
        logits = queries @ texts.T
        peak = torch.maximum(highest, logits.amax(dim=1, keepdim=True))
        total = total * (highest - peak).exp() + (logits - peak).exp() @ texts
        highest = peak
    if count == 0:
        raise UserError("the memory is empty: give at least one text")
    return F.normalize(total, dim=-1)
