"""Concept files: a list of words and their CLIP text embeddings."""

import json
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.tensor_file import write_tensors


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
        UserError: If there are no words, a word comes twice, or the sizes do not agree.
    """
    words = list(words)
    if not words:
        raise UserError("no words: a concept file needs at least one")
    twice = sorted(word for word, count in Counter(words).items() if count > 1)
    if twice:
        raise UserError(f"concepts given more than once: {twice}")
    if embeddings.dim() != 2 or len(embeddings) != len(words):
        raise UserError(
            f"{len(words)} words need embeddings ({len(words)}, Dc), got {tuple(embeddings.shape)}"
        )
    rows = embeddings.detach().float().cpu()
    if not bool((rows.isfinite().all(1) & (rows.norm(dim=1) > 0)).all()):
        raise UserError("an embedding is zero or not finite: the CLIP model gave no direction")
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
        MissingFileError: If there is no such file.
        UserError: If the file is not a concept file.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(
            f"no concept file at {path}; make one with: "
            f"python tools/build_concepts.py WORDS --model MODEL --out {shlex.quote(str(path))}"
        )
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            embeddings = file.get_tensor("embeddings").float()
        words = json.loads(metadata["words"])
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not a concept file: {error}") from error
    if embeddings.dim() != 2 or len(words) != len(embeddings):
        raise UserError(
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
