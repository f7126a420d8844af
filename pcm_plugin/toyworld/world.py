"""Files of the toy domains: captions, concepts and real images.

A user of the package has captions only. The real images of the training split are rendered as well
for the upper bound (oracle) of the ablation.
"""

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
"""Captions per scene, by split."""

CONCEPTS = tuple(KINDS)
"""Concepts: the most common word of each kind.

Places are not included. They cover most of a picture, so that patches of sky and floor would have
the highest affinity and be mixed.
"""


def _draw(job: tuple[Scene, str, Path]) -> None:
    scene, seed, path = job
    render(scene, seed).image.save(path)


def build_world(
    root: Path, domain: str, sizes: dict[str, int], seed: int = 0, workers: int = 2
) -> None:
    """Write captions, concept list and real images of a domain, unless they exist.

    The folder gets ``captions_{train,val,test}.json`` (COCO captions JSON), ``images/*.png``,
    ``scenes_{train,val,test}.jsonl`` (the true scenes, for measurements) and ``concepts.txt``.

    Args:
        root: Folder of the domain.
        domain: Key of :data:`~.scene.DOMAINS`.
        sizes: Number of scenes of each split.
        seed: Seed of the scenes. Defaults to 0.
        workers: Number of rendering processes. Defaults to 2.

    Raises:
        UserError: If the folder contains a world with other settings.
    """
    settings = {"domain": domain, "sizes": sizes, "seed": seed}
    done = root / "world.json"
    if done.exists():
        existing = json.loads(done.read_text())
        if existing != settings:
            raise UserError(
                f"{root} must contain a world with {settings}, got {existing}: delete the folder"
            )
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
            for _ in tqdm(work, total=len(jobs), desc=f"render {domain} {split}"):
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
    """Return the scenes in a ``scenes_*.jsonl`` file of :func:`build_world`, by image id."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row.pop("image_id"): scene_from_dict(row) for row in rows}


def unseen_scenes(count: int, seed: int = 0, minimum: int = 1) -> list[Scene]:
    """Return test scenes, whose content is not on the toy web, of town and country in turn.

    Args:
        count: Number of scenes.
        seed: Seed of the scenes. Defaults to 0.
        minimum: Minimum number of things in a scene. Defaults to 1.
    """
    streams = [
        (s for s in scenes(DOMAINS[d], "test", 20 * count, seed) if len(s.things) >= minimum)
        for d in ("town", "country")
    ]
    pairs: Sequence[list[Scene]] = [list(islice(s, (count + 1) // 2)) for s in streams]
    return [scene for pair in zip(*pairs, strict=True) for scene in pair][:count]
