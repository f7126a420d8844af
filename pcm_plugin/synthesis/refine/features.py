"""Contrastive refinement of the global features of synthetic images: SynTIC, a reconstruction.

SynTIC (AAAI 2024, arXiv 2312.08865) moves the features of synthetic images toward those of real
ones with a contrastive objective in the joint space of CLIP. Neither its loss nor its settings are
published. :func:`~pcm_plugin.models.functional.contrast.refine_by_contrast` documents the objective
that is used here and the reasons for it.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.refined_features import FEATURES_FILE, FORMAT, save_refined_features
from pcm_plugin.formats.shards import Shard, ShardFolder
from pcm_plugin.formats.tensor_file import write_tensors
from pcm_plugin.models.functional.contrast import refine_by_contrast
from pcm_plugin.synthesis.ranks import Rank, deterministic_cpu_threads
from pcm_plugin.synthesis.refine.assignment import Among
from pcm_plugin.synthesis.refine.settings import ContrastSettings
from pcm_plugin.synthesis.sharing import claim_shards


def refine_features(
    store: str | os.PathLike,
    settings: ContrastSettings,
    out: str | os.PathLike,
    chunk: int = 8192,
    device: str | None = None,
    rank: Rank | None = None,
    among: Among | None = None,
) -> Tensor:
    """Refine the image of every caption, and write ``OUT/features.safetensors``.

    Several ranks share the chunks. If the folder has chunks already, only the missing ones are
    made.

    Args:
        store: Folder of a finished store.
        settings: Settings of the refinement.
        out: Folder to write.
        chunk: Captions per chunk. Defaults to 8,192.
        device: Device of the computation. Defaults to a GPU if there is one.
        rank: Rank of this process. Defaults to that of torchrun or srun.
        among: Captions from which the negatives are chosen, such as those that are not held out for
            validation; its images have no effect. Defaults to None, all captions.

    Returns:
        (m, Dc) float16; row j is the refined feature of the image of caption j.

    Raises:
        MissingFileError: If there is no store.
        UserError: If the store is unfinished or has no captions or no images, or the folder was
            made with other settings.
    """
    if chunk < 1:
        raise UserError(f"chunk must be at least 1, got {chunk}")
    features = FeatureStore(store)
    features.require_images("refinement")
    count = features.num_captions
    if not count:
        raise UserError(f"the images of {store} have no captions: there is nothing to refine")
    rank = rank or Rank.from_environment()
    device = device or rank.device()
    plan = [
        Shard(f"features-{index:05d}", min(chunk, count - start), "rows")
        for index, start in enumerate(range(0, count, chunk))
    ]
    made_with: dict[str, Any] = {"method": "contrast", **settings.__dict__}
    made_with |= {"chunk": chunk, "store": features.identity}
    if among is not None:
        made_with["among"] = among.identity
    folder = ShardFolder.open_for_write(out, FORMAT, made_with, plan)
    candidates = np.arange(count) if among is None else among.captions
    order = np.random.default_rng(settings.seed).permutation(candidates)
    negatives = features.read_rows("caption_feats", np.sort(order[: settings.negatives])).to(device)
    with deterministic_cpu_threads(device), torch.inference_mode():
        for index, tick in claim_shards(folder, plan, rank, "refine: features", "row"):
            rows = range(index * chunk, index * chunk + plan[index].count)
            refined = refine_by_contrast(
                features.read_rows("global_feats", features.caption_to_image(rows)).to(device),
                features.read_rows("caption_feats", rows).to(device),
                negatives,
                settings.temperature,
                settings.steps,
                settings.step_size,
            )
            name = f"{plan[index].name}.safetensors"
            write_tensors(folder.path / name, {"global_feats": refined.half()})
            tick(len(rows))
            folder.commit(plan[index], [name], len(rows))
    feats = torch.cat([_read(folder.path, shard) for shard in plan])
    if rank.index == 0:
        save_refined_features(folder.path / FEATURES_FILE, feats, features)
    return feats


def _read(folder: Path, shard: Shard) -> Tensor:
    return load_file(folder / f"{shard.name}.safetensors")["global_feats"]
