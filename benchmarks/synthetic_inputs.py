"""Feature stores and image shards with random content."""

import itertools
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from tqdm import tqdm

from pcm_plugin.formats.atomic_io import write_bytes
from pcm_plugin.formats.clip_head import CLIP_HEAD
from pcm_plugin.formats.feature_shard import FORMAT, write_feature_shard
from pcm_plugin.formats.shards import Shard, ShardFolder
from pcm_plugin.synthesis.generate import generate_images
from pcm_plugin.synthesis.generate.text2image import GenerationResult

Features = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def write_store(path: Path, entries: int, size: int, features: Callable[[int], Features]) -> None:
    """Write a feature store with one caption per image; existing shards are kept.

    Args:
        path: Folder of the store.
        entries: Number of images.
        size: Number of images per shard.
        features: Maps the index of a shard to patch features (size, N, Dv), global features
            (size, Dc) and caption features (size, Dc).
    """
    plan = [
        Shard(f"shard-{s:05d}", min(size, entries - s * size), "made up")
        for s in range(-(-entries // size))
    ]
    folder = ShardFolder.open_for_write(
        path, FORMAT, {"model": "made up", "entries": entries}, plan
    )
    for s, shard in enumerate(tqdm(plan, desc="write store", unit="shard")):
        if shard.name in folder.shards:
            continue
        patches, pictures, texts = (part[: shard.count] for part in features(s))
        images = [
            {"image_id": str(s * size + i), "captions": ["a dog runs on the grass"]}
            for i in range(shard.count)
        ]
        scores = 2.5 * (texts.float() * pictures.float()).sum(1)
        write_feature_shard(folder, shard, images, patches, pictures, texts, scores)
    sizes = folder.manifest["info"]
    head = torch.zeros(sizes["patch_dim"], sizes["clip_dim"])
    write_bytes(path / CLIP_HEAD, save({"proj": head}))


def write_images(path: Path, count: int, side: int, distinct: int | None = None) -> None:
    """Write image shards like `pcm generate`: random smooth images with one caption each.

    Args:
        path: Folder to create.
        count: Number of images.
        side: Height and width.
        distinct: Number of different images; fewer are faster to create. Defaults to all.
    """
    settings = generate_images.GenerateSettings(pipeline="made/up", size=side)

    class ImageGenerator:
        def __init__(self, *_: object) -> None:
            self.settings, self._random = settings, np.random.default_rng(0)
            self._images: list[Image.Image] = []
            self._next = itertools.cycle(range(distinct or count))

        def generate(self, requests: list) -> list[GenerationResult]:
            return [GenerationResult(self._made(next(self._next)), 0, []) for _ in requests]

        def _made(self, number: int) -> Image.Image:
            if number == len(self._images):
                self._images.append(self._image())
            return self._images[number]

        def _image(self) -> Image.Image:
            coarse = self._random.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            smooth = np.asarray(
                Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
            )
            grain = self._random.normal(0, 4, smooth.shape)
            return Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))

    captions = path.with_suffix(".txt")
    captions.write_text("\n".join(f"a dog runs over the grass with ball {i}" for i in range(count)))
    encoded: dict[int, bytes] = {}

    def encode(image: Image.Image, settings: generate_images.GenerateSettings) -> bytes:
        if id(image) not in encoded:  # all images are kept
            encoded[id(image)] = write(image, settings)
        return encoded[id(image)]

    write = generate_images.encode
    with (
        mock.patch.object(generate_images, "ImageGenerator", ImageGenerator),
        mock.patch.object(generate_images, "encode", encode),
    ):
        generate_images.generate_images(captions, settings, path, device="cpu")
