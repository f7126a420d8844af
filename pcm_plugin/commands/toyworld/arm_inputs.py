"""Files that some trainings need in addition to the data of the demo."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pcm_plugin.commands.toyworld.arm_features import FEATURES
from pcm_plugin.commands.toyworld.arms import (
    ARMS,
    CHOICES,
    POOLS,
    REAL_STORE,
    ROAD,
    SEVERAL,
    SEVERAL_IMAGES,
    Pool,
    guidance_arm,
    guidance_folder,
)
from pcm_plugin.commands.toyworld.guidances import GUIDANCES
from pcm_plugin.commands.toyworld.steps import (
    CAPTIONS,
    CLIP,
    DATA,
    GUIDANCE,
    extract_features,
    generate,
    run,
)
from pcm_plugin.formats.clip_head import CLIP_HEAD, CLIP_HEAD_KEYS, load_clip_head
from pcm_plugin.formats.tensor_file import write_tensors
from pcm_plugin.toyworld.world import build_world

TOWN = DATA / "town"
EXTRACT_REAL: tuple[object, ...] = (
    *("extract", TOWN / "images", "--captions", CAPTIONS),
    *("--model", CLIP, "--out", REAL_STORE),
)
PHOTO_SEED = 1
"""Seed of the scenes of photos; that of the captions is 0."""
# Language models that some arms start from.
_LANGUAGE_MODELS = {
    **dict.fromkeys(("prefix_text", "prefix", "prefix_patches", "prefix_pcm"), "gpt2"),
    **dict.fromkeys(("blip", "blip_pcm"), "bert"),
}


def _refine(method: str, folder: Path) -> tuple[object, ...]:
    return ("refine", folder / "train_store", "--out", folder / method, "--method", method)


def _extract_photos(pool: Pool) -> tuple[object, ...]:
    source = pool.photos / "images"
    return (
        *("extract", source, "--captions", "none", "--model", CLIP),
        *("--out", pool.photos / "store"),
    )


def _assign_to_photos(pool: Pool) -> tuple[object, ...]:
    store, photos = TOWN / "train_store", pool.photos / "store"
    words = ("--pool", photos, "--pool-images", pool.images, "--out", pool.folder)
    return ("refine", store, *words)


def _build_language_model(kind: str) -> tuple[object, ...]:
    return ("build-language-model", CAPTIONS, "--kind", kind, "--out", TOWN / kind)


def make_inputs(names: Sequence[str], processes: int) -> None:
    """Make what some arms need in addition to the data of the demo."""
    arms = {name: ARMS[name] for name in names}
    for features in dict.fromkeys(FEATURES[arm.features] for arm in arms.values()):
        if features.subfolder:
            modes = () if features.patch_mode == "plain" else ("--patch-mode", features.patch_mode)
            extract_features(processes, features.subfolder, features.clip, modes)
        if features.is_rotated:
            head = load_clip_head(features.folder() / "train_store" / CLIP_HEAD)
            write_tensors(features.head, rotate_clip_head(head))
    for guidance in GUIDANCES:
        folder = guidance_folder(guidance)
        if guidance != GUIDANCE and guidance_arm(guidance) in names:
            generate(processes, folder / "synthetic", guidance)
            store = ["--model", CLIP, "--out", folder / "train_store"]
            run(["extract", folder / "synthetic", *store], processes=processes)
    commands: list[tuple[object, ...]] = []
    if chosen := dict.fromkeys(ROAD[name] for name in arms if name in ROAD):
        generate(processes, SEVERAL / "synthetic", images_per_caption=SEVERAL_IMAGES)
        several = SEVERAL / "train_store"
        source = [SEVERAL / "synthetic", "--model", CLIP, "--out", several]
        run(["extract", *source], processes=processes)
        commands += [("refine", several, *CHOICES[key], "--out", SEVERAL / key) for key in chosen]
    for name, arm in arms.items():
        method = "contrast" if name == "syntic" else arm.refined
        if method:
            commands.append(_refine(method, FEATURES[arm.features].folder()))
        if name in _LANGUAGE_MODELS:
            commands.append(_build_language_model(_LANGUAGE_MODELS[name]))
        if name.startswith("oracle"):
            commands.append(EXTRACT_REAL)
        if name in POOLS:
            pool = POOLS[name][1]
            # Scenes with another seed, which the captions do not describe.
            sizes = {"train": pool.count, "val": 0, "test": 0}
            build_world(pool.photos, "town", sizes, PHOTO_SEED, processes)
            commands += [_extract_photos(pool), _assign_to_photos(pool)]
    for command in dict.fromkeys(commands):
        run(command)


def rotate_clip_head(head: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a CLIP head that rotates the patches in the joint space, at random but always alike.

    Args:
        head: Tensors of a CLIP head.
    """
    weight, bias, proj = (head[key] for key in CLIP_HEAD_KEYS)
    size = proj.shape[1]
    noise = torch.randn(size, size, generator=torch.Generator().manual_seed(0))
    rotation = torch.linalg.qr(noise).Q
    rotated = (weight, bias, proj.float() @ rotation)
    return dict(zip(CLIP_HEAD_KEYS, rotated, strict=True))
