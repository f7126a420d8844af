"""Hash of a captioner."""

import hashlib
import json
from collections.abc import Sequence

import torch

from pcm_plugin.models.backbones.clip_weights import model_identity
from pcm_plugin.models.captioners import PCMNet


def model_hash(model: PCMNet, concept_words: Sequence[str]) -> str:
    """Return a short hash of weights, architecture, vocabulary, concepts and CLIP model.

    Args:
        model: Captioner.
        concept_words: Words of its concepts.
    """
    digest = hashlib.sha256(str(model).encode())
    tensors = {**model.state_dict(), **model.neck.extra_tensors()}
    for key, value in sorted(tensors.items()):
        raw = value.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(memoryview(raw.numpy()))
    words = model.vocabulary.words if isinstance(model, PCMNet) else []
    clip = model.backbone and [model_identity(model.backbone.model_name), model.backbone.pool]
    digest.update(json.dumps([list(words), list(concept_words), clip]).encode())
    return digest.hexdigest()[:16]
