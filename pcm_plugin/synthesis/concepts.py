"""Concept files: a list of words and their CLIP text embeddings."""

import json
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pcm_plugin.datasets.tensor_file import write_tensors

if TYPE_CHECKING:  # models need this module first
    from pcm_plugin.models.backbones import OpenCLIPBackbone

TEMPLATES = ("A photo of {}",)
"""The paper's prompt."""

_LONGEST_CONCEPT = 3


class ConceptSet(NamedTuple):
    """The concepts PCM may find in an image.

    Attributes:
        words: C words.
        embeddings: (C, Dc) float32, each row of length 1.
        model: Name of the CLIP model that made the embeddings.
        pretrained: Name of its weights, None if the model's name says it all.
        templates: The prompts over which each embedding is the mean.
    """

    words: list[str]
    embeddings: Tensor
    model: str | None = None
    pretrained: str | None = None
    templates: tuple[str, ...] = ()


def save_concepts(
    path: str | os.PathLike,
    words: Sequence[str],
    embeddings: Tensor,
    model: str | None = None,
    pretrained: str | None = None,
    templates: Sequence[str] = (),
) -> None:
    """Write a concept file (safetensors); rows are normalised on the way.

    Args:
        path: File to write; an old one is replaced whole or not at all.
        words: C words.
        embeddings: (C, Dc), one row a word, of any length but 0.
        model: Name of the CLIP model, kept as a remark.
        pretrained: Name of its weights, kept as a remark.
        templates: The prompts, kept as a remark.

    Raises:
        ValueError: If there are no words, a word comes twice, or the sizes do not agree.
    """
    words = list(words)
    if not words:
        raise ValueError("no words: a concept file needs at least one")
    twice = sorted(word for word, count in Counter(words).items() if count > 1)
    if twice:
        raise ValueError(f"concepts given more than once: {twice}")
    if embeddings.dim() != 2 or len(embeddings) != len(words):
        raise ValueError(
            f"{len(words)} words need embeddings ({len(words)}, Dc), got {tuple(embeddings.shape)}"
        )
    rows = embeddings.detach().float().cpu()
    if not bool((rows.isfinite().all(1) & (rows.norm(dim=1) > 0)).all()):
        raise ValueError("an embedding is zero or not finite: the CLIP model gave no direction")
    metadata = {
        "words": json.dumps(words, ensure_ascii=False),
        "templates": json.dumps([*templates]),
    }
    metadata |= {"model": model or "", "pretrained": pretrained or ""}
    write_tensors(Path(path), {"embeddings": F.normalize(rows, dim=1)}, metadata)


def load_concepts(path: str | os.PathLike) -> ConceptSet:
    """Read a concept file.

    Args:
        path: A ``.safetensors`` that :func:`save_concepts` wrote.

    Returns:
        C words, their embeddings (C, Dc) float32, and the CLIP and prompts that made them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a concept file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no concept file at {path}; make one with: "
            f"python tools/build_concepts.py WORDS --model MODEL --out {shlex.quote(str(path))}"
        )
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            embeddings = file.get_tensor("embeddings").float()
        words = json.loads(metadata["words"])
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a concept file: {error}") from error
    if embeddings.dim() != 2 or len(words) != len(embeddings):
        raise ValueError(
            f"{path} is not a concept file: "
            f"{len(words)} words, embeddings {tuple(embeddings.shape)}"
        )
    return ConceptSet(
        words,
        embeddings,
        metadata.get("model") or None,
        metadata.get("pretrained") or None,
        tuple(json.loads(metadata.get("templates") or "[]")),
    )


def read_words(path: str | os.PathLike) -> list[str]:
    """Read a list of concepts, words or short phrases.

    Args:
        path: A UTF-8 text file with one word per line; or a ``.json`` file with a list of words,
            or with an object that maps class names, of any length, to their numbers, such as
            VinVL's.

    Returns:
        The words in the order of the file, each once.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no words, is not UTF-8, or looks like captions.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8: {error.reason}") from None
    lines, are_classes = text.splitlines(), False
    if Path(path).suffix == ".json":
        lines, are_classes = _words_of_json(path, text)
    words: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        word = " ".join(line.split())
        is_long = len(word.split()) > _LONGEST_CONCEPT and not are_classes
        if is_long or word.startswith(("{", "[")):
            raise ValueError(
                f"{path}:{number}: {word[:60]!r} is no word: give a list with a word, or a phrase "
                f"of at most {_LONGEST_CONCEPT}, a line"
            )
        if word:
            words[word] = None
    if not words:
        raise ValueError(f"no words in {path}")
    return list(words)


def _words_of_json(path: str | os.PathLike, text: str) -> tuple[list[str], bool]:
    """Return the words of a JSON file, and whether they are the names of numbered classes."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    are_classes = isinstance(content, dict) and all(type(n) is int for n in content.values())
    words = list(content) if isinstance(content, list) or are_classes else []
    if not words or not all(isinstance(word, str) for word in words):
        raise ValueError(
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
def embed_words(
    words: Sequence[str],
    clip: "OpenCLIPBackbone",
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
        ValueError: If there is no template, or one has no ``{}``.
    """
    if not templates or any("{}" not in template for template in templates):
        raise ValueError(
            f"templates={list(templates)}: give at least one, each with a '{{}}' in it"
        )
    prompts = [template.replace("{}", word) for word in words for template in templates]
    parts = []
    for start in range(0, len(prompts), batch_size):
        parts.append(clip.encode_text(prompts[start : start + batch_size]).float().cpu())
    each = torch.cat(parts).view(len(words), len(templates), -1)
    return F.normalize(each.mean(1), dim=-1)
