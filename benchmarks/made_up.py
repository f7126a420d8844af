"""Feature stores of made-up numbers, for benchmarks."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save
from tqdm import tqdm

from pcm_plugin.datasets.durable import write_bytes
from pcm_plugin.datasets.feature_store import CLIP_HEAD, FORMAT, write_shard
from pcm_plugin.datasets.shards import Shard, ShardFolder

Features = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def write_store(path: Path, entries: int, size: int, features: Callable[[int], Features]) -> None:
    """Write a store of a caption an image, shards of ``size`` entries; what is there is kept.

    ``features`` gives, by the number of a shard, patch features (size, N, Dv), global and caption
    features (size, Dc); the last shard takes as many rows of them as it needs.
    """
    plan = [
        Shard(f"shard-{s:05d}", min(size, entries - s * size), "made up")
        for s in range(-(-entries // size))
    ]
    folder = ShardFolder.resume(path, FORMAT, {"model": "made up", "entries": entries}, plan)
    for s, shard in enumerate(tqdm(plan, desc="write store", unit="shard")):
        if shard.name in folder.shards:
            continue
        patches, pictures, texts = (part[: shard.count] for part in features(s))
        images = [
            {"image_id": str(s * size + i), "captions": ["a dog runs on the grass"]}
            for i in range(shard.count)
        ]
        scores = 2.5 * (texts.float() * pictures.float()).sum(1)
        write_shard(folder, shard, images, patches, pictures, texts, scores)
    sizes = folder.manifest["info"]
    head = torch.zeros(sizes["patch_dim"], sizes["clip_dim"])
    write_bytes(path / CLIP_HEAD, save({"proj": head}))
