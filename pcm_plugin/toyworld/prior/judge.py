"""A judge of pictures, trained apart: a small convolutional network that names what it sees.

It shares neither data order, architecture nor loss with the prior, sees real pictures only, and
says how many of the things that a caption names can be found in a synthetic image.
"""

from __future__ import annotations

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


def truth(scenes: list[Scene]) -> Tensor:
    """Float (n, kinds): 1 where a kind is depicted."""
    names = list(KINDS)
    out = torch.zeros(len(scenes), len(names))
    for row, scene in enumerate(scenes):
        for thing in scene.things:
            out[row, names.index(thing.kind)] = 1
    return out


def build_judge() -> nn.Module:
    """Four strided stages, then the highest response of each kind anywhere in the picture."""
    layers: list[nn.Module] = []
    for wide, out in ((3, 24), (24, 48), (48, 96), (96, 160)):
        layers += [nn.Conv2d(wide, out, 3, 2, 1), nn.BatchNorm2d(out), nn.ReLU()]
        layers += [nn.Conv2d(out, out, 3, 1, 1), nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(
        *layers, nn.Conv2d(160, len(KINDS), 1), nn.AdaptiveMaxPool2d(1), nn.Flatten()
    )


def train_judge(web: Web, checkpoint: Path, steps: int = 4000) -> nn.Module:
    """Binary cross-entropy a kind; a smoothed copy of the weights comes back."""
    torch.manual_seed(1)
    judge = build_judge()
    labels = truth(web.scenes)

    def loss_at(step: int) -> Tensor:
        rng = np.random.default_rng(step + 10**6)
        rows = rng.integers(0, len(web.scenes), _BATCH)
        x = to_tensor(web.images[rows])
        x = x + torch.randn(()) * 0.1 + 0.1 * torch.rand(()) * torch.randn_like(x)
        return F.binary_cross_entropy_with_logits(judge(x), labels[rows]) * len(KINDS)

    return train(judge, loss_at, checkpoint, steps, lr=2e-3, ema_decay=0.99)


@torch.inference_mode()
def see(judge: nn.Module, pixels: np.ndarray, batch: int = 100) -> Tensor:
    """Probabilities (n, kinds) of uint8 pictures (n, 112, 112, 3)."""
    parts = [judge(to_tensor(pixels[i : i + batch])) for i in range(0, len(pixels), batch)]
    return torch.cat(parts).sigmoid()


def fair_threshold(seen: Tensor, depicted: Tensor) -> float:
    """The probability above which the judge names as many things as there are.

    Args:
        seen (Tensor): (n, kinds), what it says of real pictures.
        depicted (Tensor): (n, kinds), 1 where a kind is there.

    Returns:
        float: At this threshold it is as often wrong in what it names as in what it misses.
    """
    ordered = seen.flatten().sort(descending=True).values
    return ordered[int(depicted.sum())].item()


def found_share(seen: Tensor, named: list[list[str]], threshold: float) -> float:
    """Share of the named things that the judge finds, over all pictures."""
    names = list(KINDS)
    hits = [
        float(row[names.index(kind)] > threshold)
        for row, kinds in zip(seen, named, strict=True)
        for kind in kinds
    ]
    return sum(hits) / len(hits)
