"""Classifier that measures whether synthetic images show the things that their captions name.

It is a small convolutional network. It shares neither the order of the data, the architecture nor
the loss with the generating models, and is trained on real pictures only.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcm_plugin.toyworld.prior.training import train
from pcm_plugin.toyworld.prior.web import Web, to_tensor
from pcm_plugin.toyworld.scene import Scene
from pcm_plugin.toyworld.things import KINDS

_BATCH = 64


def depicted_kinds(scenes: list[Scene]) -> Tensor:
    """Return a float tensor (n, kinds) that is 1 where a scene contains a kind."""
    names = list(KINDS)
    out = torch.zeros(len(scenes), len(names))
    for row, scene in enumerate(scenes):
        for thing in scene.things:
            out[row, names.index(thing.kind)] = 1
    return out


def build_judge() -> nn.Module:
    """Build the network: four strided stages and, for each kind, the maximum over all positions."""
    layers: list[nn.Module] = []
    for wide, out in ((3, 24), (24, 48), (48, 96), (96, 160)):
        layers += [nn.Conv2d(wide, out, 3, 2, 1), nn.BatchNorm2d(out), nn.ReLU()]
        layers += [nn.Conv2d(out, out, 3, 1, 1), nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(
        *layers, nn.Conv2d(160, len(KINDS), 1), nn.AdaptiveMaxPool2d(1), nn.Flatten()
    )


def train_judge(web: Web, checkpoint: Path, steps: int = 4000) -> nn.Module:
    """Train with binary cross-entropy per kind; return the network with averaged weights."""
    torch.manual_seed(1)
    judge = build_judge()
    labels = depicted_kinds(web.scenes)

    def loss_at(step: int) -> Tensor:
        rng = np.random.default_rng(step + 10**6)
        rows = rng.integers(0, len(web.scenes), _BATCH)
        x = to_tensor(web.images[rows])
        x = x + torch.randn(()) * 0.1 + 0.1 * torch.rand(()) * torch.randn_like(x)
        return F.binary_cross_entropy_with_logits(judge(x), labels[rows]) * len(KINDS)

    return train(judge, loss_at, checkpoint, steps, lr=2e-3, ema_decay=0.99)


@torch.inference_mode()
def predict(judge: nn.Module, pixels: np.ndarray, batch: int = 100) -> Tensor:
    """Return the probabilities (n, kinds) of the kinds in pictures (n, 112, 112, 3) of uint8."""
    parts = [judge(to_tensor(pixels[i : i + batch])) for i in range(0, len(pixels), batch)]
    return torch.cat(parts).sigmoid()


def balanced_threshold(probs: Tensor, depicted: Tensor) -> float:
    """Return the threshold at which precision equals recall.

    Args:
        probs: (n, kinds) float, predicted probabilities of real pictures.
        depicted: (n, kinds) float, 1 where a picture shows a kind.
    """
    ordered = probs.flatten().sort(descending=True).values
    return ordered[int(depicted.sum())].item()


def found_share(probs: Tensor, named: list[list[str]], threshold: float) -> float:
    """Return the share of the named things whose probability is above the threshold."""
    names = list(KINDS)
    hits = [
        float(row[names.index(kind)] > threshold)
        for row, kinds in zip(probs, named, strict=True)
        for kind in kinds
    ]
    return sum(hits) / len(hits)
