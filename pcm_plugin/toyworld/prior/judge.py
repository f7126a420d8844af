"""Classifier that measures whether images show the things, colors and positions of their captions.

It is a small convolutional network. It shares neither the order of the data, the architecture nor
the loss with the generating models, and is trained on real pictures only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcm_plugin.toyworld.prior.training import train
from pcm_plugin.toyworld.prior.web import Web, to_tensor
from pcm_plugin.toyworld.scene import Scene
from pcm_plugin.toyworld.things import KINDS

_BATCH = 64
_NAMES = list(KINDS)
_COLORED = [(name, c) for name, kind in KINDS.items() for c in dict.fromkeys(kind.colors)]


def labels_of(scenes: Sequence[Scene]) -> Tensor:
    """Return a float tensor that is 1 where a scene contains a kind, or a kind in a color.

    Returns:
        (n, kinds + colored kinds): the kinds in the order of ``KINDS``, followed by each kind in
        each of its colors.
    """
    columns: dict[object, int] = {key: i for i, key in enumerate([*_NAMES, *_COLORED])}
    labels = torch.zeros(len(scenes), len(columns))
    for row, scene in enumerate(scenes):
        for thing in scene.things:
            labels[row, columns[thing.kind]] = 1
            labels[row, columns[thing.kind, thing.color]] = 1
    return labels


def build_judge() -> nn.Module:
    """Build the network: four strided stages, and the scores of each kind at each position.

    It maps pictures (n, 3, 112, 112) in [-1, 1] to scores (n, kinds + colored kinds, 7, 7).
    """
    layers: list[nn.Module] = []
    for wide, out in ((3, 24), (24, 48), (48, 96), (96, 160)):
        layers += [nn.Conv2d(wide, out, 3, 2, 1), nn.BatchNorm2d(out), nn.ReLU()]
        layers += [nn.Conv2d(out, out, 3, 1, 1), nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(160, len(_NAMES) + len(_COLORED), 1))


def train_judge(web: Web, checkpoint: Path, steps: int = 4000) -> nn.Module:
    """Train with binary cross-entropy on the maximum of each score over all positions.

    Returns:
        The network with averaged weights.
    """
    torch.manual_seed(1)
    judge: Any = build_judge()
    judge.to(memory_format=torch.channels_last)
    labels = labels_of(web.scenes)

    def loss_at(step: int) -> Tensor:
        rng = np.random.default_rng(step + 10**6)
        rows = rng.integers(0, len(web.scenes), _BATCH)
        x = to_tensor(web.images[rows])
        x = x + torch.randn(()) * 0.1 + 0.1 * torch.rand(()) * torch.randn_like(x)
        # Four times as fast on a CPU as with the default layout in float32.
        with torch.autocast("cpu", torch.bfloat16):
            scores = judge(x.contiguous(memory_format=torch.channels_last))
        logits = scores.float().flatten(2).amax(2)
        return F.binary_cross_entropy_with_logits(logits, labels[rows], reduction="sum") / _BATCH

    return train(judge, loss_at, checkpoint, steps, lr=2e-3, ema_decay=0.99)


@dataclass(frozen=True)
class Verdict:
    """Things, colors and positions that the judge finds in pictures.

    Attributes:
        kinds: (n, kinds) float, probability of each kind.
        colors: For each picture and kind, its most probable color.
        columns: (n, kinds) int, column from 0 to 6 in which the score of each kind is highest.
    """

    kinds: Tensor
    colors: list[dict[str, str]]
    columns: Tensor


@torch.inference_mode()
def predict(judge: nn.Module, pixels: np.ndarray, batch: int = 100) -> Verdict:
    """Judge pictures (n, 112, 112, 3) of uint8."""
    parts = [judge(to_tensor(pixels[i : i + batch])) for i in range(0, len(pixels), batch)]
    scores = torch.cat(parts)
    best = scores.flatten(2).amax(2)
    colors = [
        {
            name: max(
                (score, color)
                for (kind, color), score in zip(_COLORED, row, strict=True)
                if kind == name
            )[1]
            for name in _NAMES
        }
        for row in best[:, len(_NAMES) :].tolist()
    ]
    kinds = slice(len(_NAMES))
    columns = scores[:, kinds].amax(2).argmax(2)
    return Verdict(best[:, kinds].sigmoid(), colors, columns)


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
    hits = [
        float(row[_NAMES.index(kind)] > threshold)
        for row, kinds in zip(probs, named, strict=True)
        for kind in kinds
    ]
    return sum(hits) / len(hits)
