"""Concept set: a list of words and their CLIP text embeddings in a safetensors file."""

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
    """Concepts that PCM detects in images.

    Attributes:
        words: C words.
        embeddings: (C, Dc) float32, L2-normalized rows.
        model: Name of the CLIP model that computed the embeddings. Defaults to None.
        pretrained: Name of its weights. Defaults to None: the model name identifies them.
        templates: Prompts whose embeddings were averaged. Defaults to none.
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
    """Write a concept file with L2-normalized embeddings.

    Args:
        path: File to write; an existing file is replaced atomically.
        words: C words.
        embeddings: (C, Dc), one row per word, of any norm except 0.
        model: Name of the CLIP model, stored as metadata. Defaults to None.
        pretrained: Name of its weights, stored as metadata. Defaults to None.
        templates: The prompts, stored as metadata. Defaults to none.

    Raises:
        UserError: If there are no words, a word is repeated, or the sizes do not match.
    """
    words = list(words)
    if not words:
        raise UserError("`words` must have at least one word, got none")
    repeated = sorted(word for word, count in Counter(words).items() if count > 1)
    if repeated:
        raise UserError(f"concepts must be unique, but these are repeated: {repeated}")
    if embeddings.dim() != 2 or len(embeddings) != len(words):
        raise UserError(
            f"`embeddings` of {len(words)} words must have shape ({len(words)}, Dc), got "
            f"{tuple(embeddings.shape)}"
        )
    rows = embeddings.detach().float().cpu()
    if not bool((rows.isfinite().all(1) & (rows.norm(dim=1) > 0)).all()):
        raise UserError("`embeddings` must be finite and not zero: check the CLIP model")
    metadata = {
        "words": json.dumps(words, ensure_ascii=False),
        "templates": json.dumps([*templates]),
    }
    metadata |= {"model": model or "", "pretrained": pretrained or ""}
    write_tensors(Path(path), {"embeddings": F.normalize(rows, dim=1)}, metadata)


def load_concepts(path: str | os.PathLike) -> ConceptSet:
    """Read a concept file.

    Args:
        path: A file of :func:`save_concepts`.

    Returns:
        The words, their embeddings, and the CLIP model and prompts.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If the file is not a concept file.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(
            f"no concept file at {path}; make one with: "
            f"pcm build-concepts WORDS --model MODEL --out {shlex.quote(str(path))}"
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
