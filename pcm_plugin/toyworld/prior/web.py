"""The toy web: pictures with captions, on which the CLIP and diffusion models are trained.

It contains all places and kinds of things, and pictures of one thing on a plain background. It
contains no content of the val and test splits.
"""

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pcm_plugin.toyworld.captions import annotate
from pcm_plugin.toyworld.render import SIZE, render
from pcm_plugin.toyworld.scene import WEB, Scene, scene_from_dict, scenes

_CHUNK = 256


@dataclass
class Web:
    """The rendered web.

    Attributes:
        images: (n, 112, 112, 3) uint8, in memory, since rows are read in random order.
        scenes: Scene of each picture.
        captions: Five captions per picture.
    """

    images: np.ndarray
    scenes: list[Scene]
    captions: list[list[str]]


def to_tensor(pixels: np.ndarray) -> Tensor:
    """Convert uint8 pictures (n, 112, 112, 3) to float32 (n, 3, 112, 112) in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def _render_chunk(job: tuple[list[Scene], int]) -> np.ndarray:
    chunk, start = job
    pictures = [render(scene, f"web/{start + i}").image for i, scene in enumerate(chunk)]
    return np.stack([np.asarray(picture) for picture in pictures])


def build_web(folder: Path, count: int, seed: int = 0, workers: int = 2) -> None:
    """Render ``count`` pictures, unless they exist."""
    done = folder / "scenes.jsonl"
    if done.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    drawn = list(scenes(WEB, "train", count, seed))
    images = np.lib.format.open_memmap(
        folder / "images.npy", "w+", np.uint8, (count, SIZE, SIZE, 3)
    )
    jobs = [(drawn[i : i + _CHUNK], i) for i in range(0, count, _CHUNK)]
    with ProcessPoolExecutor(workers) as pool, tqdm(total=count, desc="web") as bar:
        for (chunk, start), done_chunk in zip(jobs, pool.map(_render_chunk, jobs), strict=True):
            images[start : start + len(chunk)] = done_chunk
            bar.update(len(chunk))
    images.flush()
    part = done.with_suffix(".part")
    with part.open("w") as file:
        for i, scene in enumerate(drawn):
            captions = annotate(scene, WEB.style, f"web/{i}")
            file.write(json.dumps({"scene": asdict(scene), "captions": captions}) + "\n")
    part.rename(done)


def load_web(folder: Path) -> Web:
    """Load the web that :func:`build_web` wrote."""
    rows = [json.loads(line) for line in (folder / "scenes.jsonl").open()]
    return Web(
        np.load(folder / "images.npy"),
        [scene_from_dict(row["scene"]) for row in rows],
        [row["captions"] for row in rows],
    )
