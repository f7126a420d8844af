"""CLIP text embeddings of concepts."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.models.backbones import OpenCLIPBackbone
from pcm_plugin.synthesis.concepts.templates import TEMPLATES


@torch.no_grad()
def embed_concepts(
    words: Sequence[str],
    clip: OpenCLIPBackbone,
    templates: Sequence[str] = TEMPLATES,
    batch_size: int = 256,
) -> Tensor:
    """Embed concepts as the mean CLIP text embedding over a prompt ensemble (paper, Sec. 3.1).

    Args:
        words: C words or short phrases.
        clip: Model of which ``encode_text`` is used.
        templates: Prompts with one ``{}`` each. Defaults to ``'A photo of {}'``, as in the paper.
        batch_size: Prompts per batch. Defaults to 256.

    Returns:
        (C, Dc) float32 on the CPU, each row of length 1.

    Raises:
        UserError: If there are no templates, or one has no ``{}``.
    """
    if not templates or any("{}" not in template for template in templates):
        raise UserError(
            f"templates must be at least one text, each with '{{}}', got {list(templates)}"
        )
    prompts = [template.replace("{}", word) for word in words for template in templates]
    parts = []
    for start in range(0, len(prompts), batch_size):
        parts.append(clip.encode_text(prompts[start : start + batch_size]).float().cpu())
    each = torch.cat(parts).view(len(words), len(templates), -1)
    return F.normalize(each.mean(1), dim=-1)
