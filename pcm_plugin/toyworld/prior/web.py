"""The toy web: pictures with captions and tags, from which the prior learns.

It has every place and every kind of thing, and pictures of one thing on a plain backdrop. Contents
that belong to the val or test split of any domain never occur on it.
"""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..captions import annotate
from ..render import SIZE, render
from ..scene import WEB, Scene, Thing, scenes

_CHUNK = 256


@dataclass
class Web:
    """The rendered web.

    Attributes:
        images (numpy.ndarray): uint8 (n, 112, 112, 3), in memory: rows are drawn at random.
        scenes (list[Scene]): What each picture shows.
        captions (list[list[str]]): Five captions a picture.
    """

    images: np.ndarray
    scenes: list[Scene]
    captions: list[list[str]]


def scene_from_dict(data: dict) -> Scene:
    """The inverse of :func:`dataclasses.asdict` for a scene."""
    return Scene(**{**data, "things": tuple(Thing(**t) for t in data["things"])})


def _render_chunk(job: tuple[list[Scene], int]) -> np.ndarray:
    chunk, start = job
    return np.stack([np.asarray(render(s, f"web/{start + i}").image) for i, s in enumerate(chunk)])


def build_web(folder: Path, count: int, seed: int = 0, workers: int = 2) -> None:
    """Render ``count`` pictures; does nothing when they are there already."""
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
        for (chunk, start), pixels in zip(jobs, pool.map(_render_chunk, jobs), strict=True):
            images[start : start + len(chunk)] = pixels
            bar.update(len(chunk))
    images.flush()
    part = done.with_suffix(".part")
    with part.open("w") as file:
        for i, scene in enumerate(drawn):
            captions = annotate(scene, WEB.style, f"web/{i}")
            file.write(json.dumps({"scene": asdict(scene), "captions": captions}) + "\n")
    part.rename(done)


def load_web(folder: Path) -> Web:
    """Open what :func:`build_web` made."""
    rows = [json.loads(line) for line in (folder / "scenes.jsonl").open()]
    return Web(
        np.load(folder / "images.npy"),
        [scene_from_dict(row["scene"]) for row in rows],
        [row["captions"] for row in rows],
    )
