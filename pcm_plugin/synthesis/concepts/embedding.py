"""Word lists of concepts, and their CLIP text embeddings."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.models.backbones import OpenCLIPBackbone

TEMPLATES = ("A photo of {}",)
"""The paper's prompt."""

_LONGEST_CONCEPT = 3


def read_word_list(path: str | os.PathLike) -> list[str]:
    """Read a list of concepts, words or short phrases.

    Args:
        path: A UTF-8 text file with one word per line; or a ``.json`` file with a list of words,
            or with an object that maps class names, of any length, to their numbers, such as
            VinVL's.

    Returns:
        The words in the order of the file, each once.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If it holds no words, is not UTF-8, or looks like captions.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8: {error.reason}") from None
    lines, are_classes = text.splitlines(), False
    if Path(path).suffix == ".json":
        lines, are_classes = _words_of_json(path, text)
    words: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        word = " ".join(line.split())
        is_long = len(word.split()) > _LONGEST_CONCEPT and not are_classes
        if is_long or word.startswith(("{", "[")):
            raise UserError(
                f"{path}:{number}: {word[:60]!r} is no word: give a list with a word, or a phrase "
                f"of at most {_LONGEST_CONCEPT}, a line"
            )
        if word:
            words[word] = None
    if not words:
        raise UserError(f"no words in {path}")
    return list(words)


def _words_of_json(path: str | os.PathLike, text: str) -> tuple[list[str], bool]:
    """Return the words of a JSON file, and whether they are the names of numbered classes."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    are_classes = isinstance(content, dict) and all(type(n) is int for n in content.values())
    words = list(content) if isinstance(content, list) or are_classes else []
    if not words or not all(isinstance(word, str) for word in words):
        raise UserError(
            f"{path} is not a list of words: pass a JSON list of texts, a JSON object of class "
            "names and their numbers, or one word per line"
        )
    return words, are_classes


def prompts(templates: Sequence[str]) -> tuple[str, ...]:
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
