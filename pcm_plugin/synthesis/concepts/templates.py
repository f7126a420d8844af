"""Prompts over which the text embeddings of a concept are averaged."""

from collections.abc import Sequence

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
