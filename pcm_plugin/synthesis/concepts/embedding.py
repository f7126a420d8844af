"""CLIP text embeddings of concepts."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.models.backbones import OpenCLIPBackbone

TEMPLATES = ("A photo of {}",)
"""The paper's prompt."""


def resolve_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """Templates as they are, or open_clip's sets by their names.

    Args:
        templates: Texts with a ``{}`` each; or one name: ``'simple'`` (7) or ``'openai'`` (80).
    """
    if list(templates) not in (["simple"], ["openai"]):
        return tuple(templates)
    # Slow to import, and only needed here.
    import open_clip

    named = getattr(open_clip, f"{templates[0].upper()}_IMAGENET_TEMPLATES")
    return tuple(template("{}") for template in named)


@torch.no_grad()
def embed_concepts(
    words: Sequence[str],
    clip: OpenCLIPBackbone,
    templates: Sequence[str] = TEMPLATES,
    batch_size: int = 256,
) -> Tensor:
    """Embed words as CLIP texts: the mean over a prompt ensemble (paper, Sec. 3.1).

    Args:
        words: C words or short phrases.
        clip: Only its ``encode_text`` is used.
        templates: Prompts with one ``{}`` each. Defaults to the paper's ``'A photo of {}'``.
        batch_size: Prompts encoded at a time. Defaults to 256.

    Returns:
        (C, Dc) float32 on the CPU, each row of length 1.

    Raises:
        UserError: If there is no template, or one has no ``{}``.
    """
    if not templates or any("{}" not in template for template in templates):
        raise UserError(f"templates={list(templates)}: give at least one, each with a '{{}}' in it")
    prompts = [template.replace("{}", word) for word in words for template in templates]
    parts = []
    for start in range(0, len(prompts), batch_size):
        parts.append(clip.encode_text(prompts[start : start + batch_size]).float().cpu())
    each = torch.cat(parts).view(len(words), len(templates), -1)
    return F.normalize(each.mean(1), dim=-1)
