"""Continue a prefix with a causal language model of transformers, one token at a time."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.compatibility.key_value_cache import select_rows
from pcm_plugin.models.functional.beam_search import Step


def continue_prefix(
    lm: Any, prefix: Tensor, mask: Tensor, min_len: int, stop_ids: Sequence[int]
) -> Step:
    """Return the ``step`` of a beam search that continues prefixes.

    Keys and values of the prefix and of previous tokens are cached, so that a step computes one
    token per beam.

    Args:
        lm: Causal language model of transformers, such as GPT2LMHeadModel.
        prefix: (B, L, E), input embeddings.
        mask: (B, L) bool, True for positions that may be attended to. Masked positions get no
            position id.
        min_len: Minimum number of tokens before one of ``stop_ids``.
        stop_ids: Tokens that end a sequence.
    """
    allowed, past = mask, None  # (B * W, L + t)
    positions = allowed.long().sum(1, keepdim=True)  # (B, 1), of the next token

    def step(words: Tensor, parents: Tensor | None) -> Tensor:
        nonlocal allowed, past, positions
        if parents is None:  # first step
            beams = 1
            out = _run(lm, prefix, allowed, (allowed.long().cumsum(1) - 1).clamp(min=0), past)
        else:
            beams = words.shape[1]
            images = torch.arange(len(parents), device=parents.device).unsqueeze(1)  # (B, 1)
            rows = (images * (len(allowed) // len(parents)) + parents).flatten()  # (B * W,)
            past = select_rows(past, rows)
            allowed = F.pad(allowed[rows], (0, 1), value=True)  # (B * W, L + t)
            inputs = lm.get_input_embeddings()(words.flatten().unsqueeze(1))  # (B * W, 1, E)
            out = _run(lm, inputs.to(prefix.dtype), allowed, positions[rows], past)
            positions = positions[rows] + 1
        past = out.past_key_values
        logits = lm.get_output_embeddings()(out.last_hidden_state[:, -1])
        if allowed.shape[1] - prefix.shape[1] < min_len:
            logits[:, list(stop_ids)] = -torch.inf
        return logits.unflatten(0, (-1, beams))

    return step


def _run(lm: Any, inputs: Tensor, mask: Tensor, positions: Tensor, past: Any) -> Any:
    return lm.base_model(
        inputs_embeds=inputs,
        attention_mask=mask.long(),
        position_ids=positions,
        past_key_values=past,
        use_cache=True,
    )
