"""Measure the toy world's CLIP and diffusion models.

    pcm measure-prior --cache data/toy_prior

CLIP is measured by text-to-image retrieval, concept recall and patch locality on unseen scenes, the
diffusion model by the share of the things named in a caption that a classifier finds in the image,
and by its CLIP scores, compared with those of random and real pairs. The classifier (judge) is
trained at the first run, in the cache folder; its threshold is that of equal precision and recall
on real pictures.
"""

import argparse
import json
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from pcm_plugin.errors import plain_errors
from pcm_plugin.formats.atomic_io import content_id
from pcm_plugin.models.backbones import OpenCLIPBackbone
from pcm_plugin.toyworld import ASSETS
from pcm_plugin.toyworld.captions import annotate
from pcm_plugin.toyworld.prior import quality
from pcm_plugin.toyworld.prior.judge import (
    balanced_threshold,
    depicted_kinds,
    found_share,
    predict,
    train_judge,
)
from pcm_plugin.toyworld.prior.web import load_web
from pcm_plugin.toyworld.render import render
from pcm_plugin.toyworld.scene import TOWN, scenes
from pcm_plugin.toyworld.truth import named_things
from pcm_plugin.toyworld.world import unseen_scenes


def measure_clip(clip: OpenCLIPBackbone) -> dict:
    """Return the measurements of the CLIP model."""
    return {
        "retrieval among 500": quality.retrieval(clip),
        "concept recall": quality.concept_recall(clip),
        "locality": quality.locality(clip),
    }


def measure_diffusion(
    clip: OpenCLIPBackbone, folder: Path, cache: Path, count: int, steps: int, guidance: float
) -> dict:
    """Return the measurements of the diffusion model on training captions of the town."""
    from diffusers import DiffusionPipeline

    true_scenes = list(islice(scenes(TOWN, "train", count, 7), count))
    captions = [annotate(s, TOWN.style, f"diffusion/{i}", 1)[0] for i, s in enumerate(true_scenes)]
    real = [render(s, f"diffusion/{i}").image for i, s in enumerate(true_scenes)]
    pipeline = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    synthetic: list = []
    for start in range(0, count, 25):
        synthetic += pipeline(
            captions[start : start + 25],
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generator,
        ).images
    judge = train_judge(load_web(cache / "web"), cache / "judge.safetensors")
    unseen = unseen_scenes(500, seed=4)
    pictures = [np.asarray(render(s, f"judge/{i}").image) for i, s in enumerate(unseen)]
    probs = predict(judge, np.stack(pictures))
    depicted = depicted_kinds(unseen)
    threshold = balanced_threshold(probs, depicted)
    right = (probs > threshold) & depicted.bool()
    named = [named_things(c) for c in captions]
    pixels = {
        "synthetic": np.stack([np.asarray(i) for i in synthetic]),
        "real": np.stack([np.asarray(i) for i in real]),
    }
    predicted = {k: predict(judge, v) for k, v in pixels.items()}
    found = {k: found_share(v, named, threshold) for k, v in predicted.items()}
    found["random caption"] = found_share(
        predicted["synthetic"], quality.shuffled(named), threshold
    )
    features = {
        k: torch.cat(
            [
                clip(torch.stack([clip.preprocess(i) for i in images[s : s + 50]]))[1]
                for s in range(0, count, 50)
            ]
        )
        for k, images in (("synthetic", synthetic), ("real", real))
    }
    scores = {k: quality.clip_scores(clip, f, captions) for k, f in features.items()}
    scores["random caption"] = quality.clip_scores(
        clip, features["real"], quality.shuffled(captions)
    )
    return {
        "judge on unseen real pictures": {
            "threshold": threshold,
            "precision and recall": 100 * (right.sum() / depicted.sum()).item(),
        },
        "named things found by the judge": {k: 100 * v for k, v in found.items()},
        "CLIP score (2.5 cos)": {k: v.mean().item() for k, v in scores.items()},
    }


@plain_errors()
def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--clip", type=Path, default=ASSETS / "clip", help="folder of the CLIP model"
    )
    parser.add_argument(
        "--diffusion", type=Path, default=ASSETS / "diffusion", help="folder of the diffusion model"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("data/toy_prior"),
        help="folder of `pcm train-prior` (default: %(default)s)",
    )
    parser.add_argument(
        "--count", type=int, default=600, help="number of synthetic images (default: %(default)s)"
    )
    parser.add_argument(
        "--steps", type=int, default=12, help="diffusion steps (default: %(default)s)"
    )
    parser.add_argument(
        "--guidance", type=float, default=7.5, help="guidance scale (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="JSON file to write the measurements to")
    args = parser.parse_args()
    clip = OpenCLIPBackbone(f"local-dir:{args.clip}")
    report = measure_clip(clip)
    if args.diffusion.is_dir():
        report |= measure_diffusion(
            clip, args.diffusion, args.cache, args.count, args.steps, args.guidance
        )
    rounded = {name: {k: round(v, 3) for k, v in values.items()} for name, values in report.items()}
    folders = {"clip": args.clip, "diffusion": args.diffusion}
    measured = {part: content_id(path) for part, path in folders.items() if path.is_dir()}
    rounded["measured"] = measured
    print(json.dumps(rounded, indent=2))
    if args.out:
        args.out.write_text(json.dumps(rounded, indent=2) + "\n")
