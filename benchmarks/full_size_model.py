"""PCM-Net for ViT-B/32 with random weights, and batches of random features."""

import argparse
import random
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS

import pcm_plugin.models  # noqa: F401  registers
from pcm_plugin.formats.vocabulary import Vocabulary
from pcm_plugin.models import PCMNet
from pcm_plugin.structures import DataSample

VOCABULARY, CONCEPTS = 10_200, 446
BASE = Path(__file__).parents[1] / "configs" / "_base_"
"""Folder of the published settings."""


def at_least(least: int) -> Callable[[str], int]:
    """Return an argparse type: integers of at least ``least``."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {value}")
        return value

    return number


def add_size_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the settings that determine the cost."""
    parser.add_argument("--batch", type=at_least(1), default=32)
    parser.add_argument("--patches", type=at_least(1), default=49)
    parser.add_argument("--vocabulary", type=at_least(20), default=VOCABULARY)
    parser.add_argument("--amp", action="store_true", help="bfloat16 autocast")
    parser.add_argument("--device", default="cpu", help="device of the model")


def build_model(
    vocabulary: int = VOCABULARY, concepts: int = CONCEPTS, num_patches: int = 49
) -> PCMNet:
    """Build the model of the published COCO config.

    Args:
        vocabulary: Size of the vocabulary, including the EOS token.
        concepts: Number of concepts; their embeddings are random.
        num_patches: Number of patches per image.
    """
    torch.manual_seed(0)
    cfg = Config.fromfile(BASE / "models" / "pcm_vitb32.py").model
    words = Vocabulary([f"word{i}" for i in range(1, vocabulary)])
    cfg.neck.num_patches = num_patches
    model = MODELS.build(dict(cfg, vocabulary=words))
    neck = model.neck
    neck.set_concepts(
        [f"concept{i}" for i in range(concepts)], torch.randn(concepts, neck.clip_dim)
    )
    width = neck.patch_dim
    head = {"ln_post.weight": torch.ones(width), "ln_post.bias": torch.zeros(width)}
    neck.set_clip_head({**head, "proj": torch.randn(width, neck.clip_dim) / width**0.5})
    return model


def build_batch(model: PCMNet, batch: int = 32, shortest: int = 8, longest: int = 14) -> dict:
    """Create random features and captions of ``shortest`` to ``longest`` words.

    Returns:
        A batch for the model's ``train_step`` and ``test_step``.
    """
    generator = random.Random(0)
    count, width = model.neck.num_patches, model.neck.patch_dim
    samples = []
    for _ in range(batch):
        length = generator.randint(shortest, longest)
        sample = DataSample()
        sample.set_field(
            " ".join(generator.choices(model.vocabulary.words, k=length)), "gt_caption"
        )
        sample.set_field(generator.uniform(0.6, 0.9), "clip_score")
        samples.append(sample)
    return {
        "patch_feats": torch.randn(batch, count, width),
        "global_feats": torch.randn(batch, model.neck.clip_dim),
        "data_samples": samples,
    }
