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
    """Return the templates, or the prompt set of open_clip that they name.

    Args:
        templates: Texts with one ``{}`` each; or the name of a set as the only element:
            ``'simple'`` (7 prompts) or ``'openai'`` (80).
    """
    if list(templates) not in (["simple"], ["openai"]):
        return tuple(templates)
    # Imported here because it is slow.
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
