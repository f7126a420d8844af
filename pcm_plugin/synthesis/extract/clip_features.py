"""CLIP features and scores of batches of images and captions."""

from typing import NamedTuple

import torch
from torch import Tensor

from pcm_plugin.models.backbones.open_clip_backbone import OpenCLIPBackbone
from pcm_plugin.synthesis.extract.settings import ExtractSettings

CLIP_SCORE_SCALE = 2.5
"""Weight w of CLIPScore (Hessel et al. 2021); the released annotations store 2.5 * cosine."""

_TEXT_BATCH = 256


class ClipFeatures(NamedTuple):
    """Features of B images with m captions in total, on the CPU.

    Attributes:
        patch_feats: (B, N, Dv) in the type of the store; N is 0 if patches are not stored.
        global_feats: (B, Dc) float32, each row of length 1.
        caption_feats: (m, Dc) float32, each row of length 1.
        clip_scores: (m,) float32, 2.5 * cosine of each caption and its image.
    """

    patch_feats: Tensor
    global_feats: Tensor
    caption_feats: Tensor
    clip_scores: Tensor


@torch.inference_mode()
def compute_features(
    clip: OpenCLIPBackbone, pixels: Tensor, captions: list[list[str]], settings: ExtractSettings
) -> ClipFeatures:
    """Compute the features of a batch.

    Args:
        clip: The model.
        pixels: (B, 3, H, W) preprocessed images, on the device of ``clip``.
        captions: Captions of each image.
        settings: Settings of the extraction.
    """
    patch_feats, global_feats = clip(pixels)
    if not settings.patches:
        patch_feats = patch_feats[:, :0]
    texts = [settings.caption_template.replace("{}", text) for each in captions for text in each]
    caption_feats = encode_texts(clip, texts)
    counts = torch.tensor([len(each) for each in captions], device=pixels.device)
    # (B, Dc) -> (m, Dc): each image once per caption
    cosine = (caption_feats * global_feats.repeat_interleave(counts, dim=0)).sum(-1)
    return ClipFeatures(
        # There are many patches: convert them before they are kept.
        patch_feats.to(getattr(torch, settings.dtype)).cpu(),
        global_feats.cpu(),
        caption_feats.cpu(),
        CLIP_SCORE_SCALE * cosine.cpu(),
    )


def empty_features(clip: OpenCLIPBackbone, settings: ExtractSettings) -> ClipFeatures:
    """Return the features of no images."""
    num_patches = clip.num_patches if settings.patches else 0
    nothing = torch.empty(0, clip.clip_dim)
    patch_feats = torch.empty(0, num_patches, clip.patch_dim)
    return ClipFeatures(patch_feats, nothing, nothing, torch.empty(0))


@torch.inference_mode()
def encode_texts(clip: OpenCLIPBackbone, texts: list[str], batch_size: int = _TEXT_BATCH) -> Tensor:
    """Encode any number of texts, in batches.

    Args:
        clip: The model.
        texts: n texts; longer ones than CLIP's context are cut.
        batch_size: Texts per batch. Defaults to 256.

    Returns:
        (n, Dc) float32, each row of length 1.
    """
    encoded = [
        clip.encode_text(texts[start : start + batch_size])
        for start in range(0, len(texts), batch_size)
    ]
    return torch.cat(encoded) if encoded else torch.empty(0, clip.clip_dim)
