"""Measurements of the CLIP and diffusion models."""

from collections.abc import Mapping
from random import Random

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pcm_plugin.formats.clip_head import CLIP_HEAD_KEYS
from pcm_plugin.models.backbones import OpenCLIPBackbone
from pcm_plugin.models.functional.patch_affinity import project_patches
from pcm_plugin.synthesis.concepts.templates import TEMPLATES
from pcm_plugin.toyworld.captions import annotate
from pcm_plugin.toyworld.render import render
from pcm_plugin.toyworld.scene import Scene
from pcm_plugin.toyworld.world import CONCEPTS, unseen_scenes

GRID = 7


def _features(clip: OpenCLIPBackbone, scenes: list[Scene]) -> tuple[Tensor, Tensor, list]:
    pictures = [render(scene, f"quality/{i}") for i, scene in enumerate(scenes)]
    patch_feats, global_feats = [], []
    for start in range(0, len(pictures), 50):
        batch = torch.stack([clip.preprocess(p.image) for p in pictures[start : start + 50]])
        patches, images = clip(batch)
        patch_feats.append(patches)
        global_feats.append(images)
    return torch.cat(patch_feats), torch.cat(global_feats), pictures


def _embed(clip: OpenCLIPBackbone, words: tuple[str, ...]) -> Tensor:
    return clip.encode_text([TEMPLATES[0].format(word) for word in words])


def _caption_cosines(clip: OpenCLIPBackbone, count: int) -> Tensor:
    """Return the cosine of each caption and each picture, (count, count)."""
    scenes = unseen_scenes(count, seed=1)
    _, images, _ = _features(clip, scenes)
    texts = clip.encode_text([annotate(s, "rich", f"q/{i}", 1)[0] for i, s in enumerate(scenes)])
    return texts @ images.T


def joint_patches(patches: Tensor, head: Mapping[str, Tensor]) -> Tensor:
    """Return patches (n, 49, Dv) in the joint space, (n, 49, Dc) of norm 1."""
    weight, bias, proj = (head[key] for key in CLIP_HEAD_KEYS)
    return F.normalize(project_patches(patches, weight, bias, proj), dim=-1)


def retrieval(clip: OpenCLIPBackbone, count: int = 500) -> dict[str, float]:
    """Return R@1 of text-to-image retrieval among ``count`` unseen scenes, in percent."""
    right = _caption_cosines(clip, count).argmax(1) == torch.arange(count)
    return {"R@1": 100 * right.float().mean().item(), "chance": 100 / count}


def concept_recall(clip: OpenCLIPBackbone, count: int = 500, top: int = 5) -> dict[str, float]:
    """Return the share of depicted kinds among the ``top`` concepts of an image, in percent."""
    scenes = unseen_scenes(count, seed=2)
    concepts = _embed(clip, CONCEPTS)
    _, images, _ = _features(clip, scenes)
    best = (images @ concepts.T).topk(top).indices.tolist()
    hits = [
        thing.kind in [CONCEPTS[i] for i in row]
        for scene, row in zip(scenes, best, strict=True)
        for thing in scene.things
    ]
    return {f"recall@{top}": 100 * sum(hits) / len(hits), "chance": 100 * top / len(CONCEPTS)}


def _shares(mask: np.ndarray) -> np.ndarray:
    """Return the share (49,) of each patch that a thing covers."""
    side = len(mask) // GRID
    return mask.reshape(GRID, side, GRID, side).mean((1, 3)).ravel()


def patch_accuracy(
    clip: OpenCLIPBackbone, count: int = 500, head: Mapping[str, Tensor] | None = None
) -> dict[str, float]:
    """Return how often the nearest concept of a patch is the thing that covers it, in percent.

    Patches are counted of which one thing covers at least half. The chance level is that of the
    most frequent thing.

    Args:
        clip: The CLIP.
        count: Number of scenes. Defaults to 500.
        head: CLIP head that projects the patches. Defaults to None, that of the CLIP.
    """
    scenes = unseen_scenes(count, seed=3)
    patches, _, pictures = _features(clip, scenes)
    joint = joint_patches(patches, head or clip.clip_head())
    nearest = (joint @ _embed(clip, CONCEPTS).T).argmax(-1).tolist()
    found, depicted = [], []
    for picture, scene, row in zip(pictures, scenes, nearest, strict=True):
        for thing, mask in zip(scene.things, picture.masks, strict=True):
            covered = np.flatnonzero(_shares(mask) >= 0.5)
            found += [CONCEPTS[row[i]] for i in covered]
            depicted += [thing.kind] * len(covered)
    right = sum(a == b for a, b in zip(found, depicted, strict=True))
    most = max(map(depicted.count, set(depicted)))
    total = len(depicted)
    return {"accuracy": 100 * right / total, "chance": 100 * most / total, "patches": total}


def cosines(clip: OpenCLIPBackbone, count: int = 500) -> dict[str, float]:
    """Return the mean cosines of pictures with their captions, and with those of others."""
    cosine = _caption_cosines(clip, count)
    own = cosine.diag().sum().item()
    others = cosine.sum().item() - own
    return {"pairs": own / count, "random pairs": others / (count * (count - 1))}


def clip_scores(clip: OpenCLIPBackbone, images: Tensor, captions: list[str]) -> Tensor:
    """Return the CLIP scores (2.5 * cosine) of global features (n, Dc) and their captions."""
    return 2.5 * (images * clip.encode_text(captions)).sum(1)


def shuffled(items: list, seed: int = 0) -> list:
    """Return a permutation without fixed points."""
    order = list(range(len(items)))
    Random(seed).shuffle(order)
    follow = dict(zip(order, order[1:] + order[:1], strict=True))
    return [items[follow[i]] for i in range(len(items))]
