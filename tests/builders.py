"""Small real things that tests of several rooms need: stores, CLIP models, pipelines."""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save

from pcm_plugin.datasets.durable import write_bytes
from pcm_plugin.datasets.feature_store import CLIP_HEAD, FORMAT, write_shard
from pcm_plugin.datasets.shards import ShardFolder


def build_store(
    path: Path,
    captions: list[list[str]],
    num_patches: int = 4,
    patch_dim: int = 6,
    clip_dim: int = 5,
    dtype: torch.dtype = torch.float16,
    shard_size: int = 2,
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """Write a feature store of random features.

    Args:
        path: Folder to make.
        captions: The captions of each image; image i gets the id ``f'image{i}'``.

    Returns:
        The float32 tensors that the store should give back: ``patch_feats`` (n, N, Dv),
        ``global_feats`` (n, Dc), ``caption_feats`` (m, Dc), ``clip_scores`` (m,).
    """
    generator = torch.Generator().manual_seed(seed)
    n, m = len(captions), sum(map(len, captions))
    owner = torch.tensor([i for i, texts in enumerate(captions) for _ in texts], dtype=torch.int64)
    patch_feats = torch.randn(n, num_patches, patch_dim, generator=generator).to(dtype)
    global_feats = F.normalize(torch.randn(n, clip_dim, generator=generator), dim=1).to(dtype)
    caption_feats = F.normalize(torch.randn(m, clip_dim, generator=generator), dim=1).to(dtype)
    clip_scores = 2.5 * (caption_feats.float() * global_feats.float()[owner]).sum(1)
    shards = -(-n // shard_size)
    folder = ShardFolder.resume(path, FORMAT, {"model": "random", "seed": seed}, shards)
    for s in range(shards):
        images = range(s * shard_size, min(n, (s + 1) * shard_size))
        mine = (owner >= images.start) & (owner < images.stop)
        write_shard(
            folder,
            f"shard-{s:05d}",
            [
                {"image_id": f"image{i}", "captions": captions[i], "file_name": f"{i}.png"}
                for i in images
            ],
            patch_feats[images.start : images.stop],
            global_feats[images.start : images.stop],
            caption_feats[mine],
            clip_scores[mine],
        )
    head = {
        "ln_post.weight": 1 + 0.1 * torch.randn(patch_dim, generator=generator),
        "ln_post.bias": 0.1 * torch.randn(patch_dim, generator=generator),
        "proj": torch.randn(patch_dim, clip_dim, generator=generator),
    }
    write_bytes(path / CLIP_HEAD, save(head))
    return {
        "patch_feats": patch_feats.float(),
        "global_feats": global_feats.float(),
        "caption_feats": caption_feats.float(),
        "clip_scores": clip_scores,
    }
