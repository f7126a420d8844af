"""Measure in the toy world whether captions of regions name the thing in the region.

    pcm train configs/decap/decap_toy.py     # after `pcm demo --recipe toy`, in its folder
    pcm export configs/decap/decap_toy.py work_dirs/decap_toy/best_*.pth --out decap.safetensors
    python benchmarks/region_captions.py decap.safetensors

The regions are the boxes around the visible pixels of the things in the test scenes of the town,
and the centers of these boxes. The columns are the shares of regions whose caption names

- the thing in the region;
- the same thing, with the caption of a region of the next image instead: the level of chance;
- another thing of the image: low if captions describe the region and not the image.

The last column is the share of the named things that are the thing in the region. `--write` puts
the table into docs/captioning.md. The last line is JSON.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from full_size_model import at_least
from marked_page import write_marked
from PIL import Image
from tqdm import tqdm

from pcm_plugin.apis import CaptionInferencer
from pcm_plugin.commands.toyworld.scores import line, table_head
from pcm_plugin.commands.toyworld.steps import DATA
from pcm_plugin.models.functional.patch_attention import PATCH_MODES
from pcm_plugin.toyworld.render import render
from pcm_plugin.toyworld.truth import named_things
from pcm_plugin.toyworld.world import read_scenes

PAGE = Path("docs/captioning.md")
BEGIN, END = "<!-- regions: benchmarks/region_captions.py -->", "<!-- end of regions -->"
COLUMNS = ("names the thing", "chance", "names another thing", "named right")
# Ways to weight the patches: gaussian_variance of a box, or its center.
KINDS: dict[str, dict[str, Any]] = {
    "box": {},
    "box, Gaussian": {"gaussian_variance": 0.5},
    "center of the box": {},
}


class Truth(NamedTuple):
    """Regions of an image.

    Attributes:
        path: Image file.
        kinds: Kind of the thing in each region.
        boxes: The boxes (x0, y0, x1, y1).
    """

    path: str
    kinds: list[str]
    boxes: list[tuple[int, int, int, int]]


def read_truth(folder: Path, count: int | None) -> list[Truth]:
    """Return the regions of the first test images of a domain."""
    seed = json.loads((folder / "world.json").read_text())["seed"]
    truths = []
    for name, scene in list(read_scenes(folder / "scenes_test.jsonl").items())[:count]:
        masks = render(scene, f"{name}/{seed}").masks
        visible = [(t.kind, box_of(m)) for t, m in zip(scene.things, masks, strict=True) if m.any()]
        kinds, boxes = zip(*visible, strict=True)
        truths.append(Truth(str(folder / "images" / f"{name}.png"), [*kinds], [*boxes]))
    return truths


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return the box around the True pixels of a mask."""
    rows, columns = np.nonzero(mask)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def caption_regions(
    inferencer: CaptionInferencer, truths: list[Truth], kind: str
) -> list[list[str]]:
    """Return the captions of the regions of each image."""
    captions = []
    for truth in tqdm(truths, desc=f"{inferencer.backbone.patch_mode}, {kind}"):
        points = [((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in truth.boxes]
        regions = {"points": points} if "center" in kind else {"boxes": truth.boxes}
        found = inferencer.regions(truth.path, **regions, **KINDS[kind])
        captions.append([row["caption"] for row in found])
    return captions


def caption_crops(inferencer: CaptionInferencer, truths: list[Truth]) -> list[list[str]]:
    """Return the captions of the boxes of each image, each cropped and encoded on its own."""
    captions = []
    for truth in tqdm(truths, desc="crops"):
        with Image.open(truth.path) as image:
            found = inferencer([image.crop(box) for box in truth.boxes])["predictions"]
        captions.append([row["caption"] for row in found])
    return captions


def score(captions: list[list[str]], truths: list[Truth]) -> dict[str, float]:
    """Return the columns in percent; see the docstring of the module."""
    things = right = chance = others = another = named = 0
    for i, (texts, truth) in enumerate(zip(captions, truths, strict=True)):
        next_texts = captions[(i + 1) % len(captions)]
        for j, (text, kind) in enumerate(zip(texts, truth.kinds, strict=True)):
            mentioned = named_things(text)
            things += 1
            right += kind in mentioned
            named += len(mentioned)
            chance += kind in named_things(next_texts[j % len(next_texts)])
            elsewhere = set(truth.kinds) - {kind}
            others += bool(elsewhere)
            another += bool(elsewhere & set(mentioned))
    shares = right / things, chance / things, another / max(1, others), right / max(1, named)
    return {column: 100 * share for column, share in zip(COLUMNS, shares, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("captioner", help="captioner file of `pcm export`")
    parser.add_argument("--images", type=at_least(2), help="number of images (default: all)")
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    truths = read_truth(DATA / "town", args.images)
    results: dict[str, dict[str, float]] = {}
    for mode in PATCH_MODES:
        inferencer = CaptionInferencer(
            weights=args.captioner, device="cpu", show_progress=False, patch_mode=mode
        )
        if not results:
            found = inferencer([truth.path for truth in truths])["predictions"]
            whole = [
                [row["caption"]] * len(truth.kinds)
                for row, truth in zip(found, truths, strict=True)
            ]
            results["whole image"] = score(whole, truths)
            results["cropped box as an image"] = score(caption_crops(inferencer, truths), truths)
        for kind in KINDS:
            captions = caption_regions(inferencer, truths, kind)
            results[f"{kind}, `{mode}`"] = score(captions, truths)
    rows = [line([name, *(f"{row[c]:.1f}" for c in COLUMNS)]) for name, row in results.items()]
    table = "\n".join([*table_head(["caption of, %", *COLUMNS]), *rows])
    print(table)
    if args.write:
        write_marked(PAGE, BEGIN, END, f"\n{table}\n")
    regions = sum(len(truth.kinds) for truth in truths)
    print(json.dumps({"images": len(truths), "regions": regions, "shares": results}))


if __name__ == "__main__":
    main()
