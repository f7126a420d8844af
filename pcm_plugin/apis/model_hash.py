"""Hash of a captioner."""

import hashlib
import json

import torch
from torch import nn

from pcm_plugin.models.backbones import OpenCLIPBackbone
from pcm_plugin.models.backbones.clip_weights import model_identity
from pcm_plugin.models.backbones.weights_file import weights_identity
from pcm_plugin.models.captioners import Captioner, PCMNet
from pcm_plugin.models.necks.concept_bank import ConceptBank
from pcm_plugin.models.necks.patch_selection import PatchSelection

_SETTINGS = (bool, int, float, str, type(None), PatchSelection)


def model_hash(model: Captioner) -> str:
    """Return a short hash of weights, architecture, settings, vocabulary, concepts and CLIP model.

    Decoding settings are not included. The CLIP is included by name, weights, pooling and patch
    mode.

    Args:
        model: Captioner.
    """
    digest = hashlib.sha256(str(model).encode())
    # Concepts are buffers that are not saved, so the state dict does not have them.
    tensors = {**model.state_dict(), **dict(model.named_buffers()), **model.neck.extra_tensors()}
    for key, value in sorted(tensors.items()):
        raw = value.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(memoryview(raw.numpy()))
    words = model.vocabulary.to_json() if isinstance(model, PCMNet) else []
    concepts = [bank.words for bank in model.modules() if isinstance(bank, ConceptBank)]
    settings = {name: _settings(module) for name, module in model.named_modules()}
    digest.update(json.dumps([words, concepts, settings], sort_keys=True).encode())
    if isinstance(clip := model.backbone, OpenCLIPBackbone):
        identity = [model_identity(clip.model_name), weights_identity(clip.pretrained), clip.pool]
        if clip.patch_mode != "plain":
            identity.append(clip.patch_mode)
        digest.update(json.dumps(identity).encode())
    return digest.hexdigest()[:16]


def _settings(module: nn.Module) -> dict[str, str]:
    if isinstance(module, OpenCLIPBackbone):
        # Its name may be a path, on which the hash must not depend.
        return {}
    return {
        key: repr(value)
        for key, value in vars(module).items()
        if not key.startswith("_") and isinstance(value, _SETTINGS)
    }
