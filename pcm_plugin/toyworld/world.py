"""The toy domains as files: what a user would bring, and the real images to be judged by.

A user brings sentences. The real images of the training split are drawn as well, but only the
oracle of the ablation ever sees them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from pcm_plugin.errors import UserError
from pcm_plugin.formats.coco import write_coco_captions
from pcm_plugin.toyworld.captions import annotate
from pcm_plugin.toyworld.render import render
from pcm_plugin.toyworld.scene import DOMAINS, SPLITS, Scene, scene_from_dict, scenes
from pcm_plugin.toyworld.things import KINDS

CAPTIONS = {"train": 1, "val": 5, "test": 5}
"""Captions a scene, by split."""

CONCEPTS = tuple(KINDS)
"""The nouns to look for: what things are called first.

Places are not among them. They cover most of a picture, so that their patches would be the ones of
highest affinity, and the mix would describe skies and floors.
"""


def _draw(job: tuple[Scene, str, Path]) -> None:
    scene, seed, path = job
    render(scene, seed).image.save(path)


def build_world(
    root: Path, domain: str, sizes: dict[str, int], seed: int = 0, workers: int = 2
) -> None:
    """Write a domain's captions, concept list and real images; what is there is kept.

    The folder gets ``captions_{train,val,test}.json`` in COCO's form, ``images/*.png``,
    ``scenes_{train,val,test}.jsonl`` (the truth, for measurements) and ``concepts.txt``.

    Args:
        root (Path): The domain's folder.
        domain (str): A key of :data:`~.scene.DOMAINS`.
        sizes (dict[str, int]): Scenes of each split.
        seed (int): Another seed gives other scenes. Defaults to 0.
        workers (int): Processes that draw. Defaults to 2.

    Raises:
        UserError: If the folder holds a world of other sizes or another seed.
    """
    settings = {"domain": domain, "sizes": sizes, "seed": seed}
    done = root / "world.json"
    if done.exists():
        found = json.loads(done.read_text())
        if found != settings:
            raise UserError(f"{root} holds {found}, wanted {settings}: remove it first")
        return
    images = root / "images"
    images.mkdir(parents=True, exist_ok=True)
    style = DOMAINS[domain].style
    for split in SPLITS:
        drawn = list(scenes(DOMAINS[domain], split, sizes[split], seed))
        names = [f"{domain}_{split}_{i:05d}" for i in range(len(drawn))]
        captions = [
            annotate(scene, style, f"{name}/{seed}", CAPTIONS[split])
            for scene, name in zip(drawn, names, strict=True)
        ]
        jobs = [
            (scene, f"{name}/{seed}", images / f"{name}.png")
            for scene, name in zip(drawn, names, strict=True)
        ]
        with ProcessPoolExecutor(workers) as pool:
            work = pool.map(_draw, jobs, chunksize=32)
            for _ in tqdm(work, total=len(jobs), desc=f"draw {domain} {split}"):
                pass
        rows = ({"image_id": n, **asdict(s)} for n, s in zip(names, drawn, strict=True))
        (root / f"scenes_{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        write_coco_captions(
            root / f"captions_{split}.json",
            [(n, f"{n}.png", c) for n, c in zip(names, captions, strict=True)],
        )
    (root / "concepts.txt").write_text("\n".join(CONCEPTS) + "\n")
    done.write_text(json.dumps(settings) + "\n")


def read_scenes(path: Path) -> dict[str, Scene]:
    """The scenes of a ``scenes_*.jsonl`` that :func:`build_world` wrote, by image id."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row.pop("image_id"): scene_from_dict(row) for row in rows}


def unseen_scenes(count: int, seed: int = 0, minimum: int = 1) -> list[Scene]:
    """Test scenes of both target domains in turn, of ``minimum`` things or more.

    No scene of such content was on the toy web.
    """
    streams = [
        (s for s in scenes(DOMAINS[d], "test", 20 * count, seed) if len(s.things) >= minimum)
        for d in ("town", "country")
    ]
    pairs: Sequence[list[Scene]] = [list(islice(s, (count + 1) // 2)) for s in streams]
    return [scene for pair in zip(*pairs, strict=True) for scene in pair][:count]
