"""Measurements of the toy world's CLIP and diffusion models."""

from itertools import islice
from pathlib import Path

import numpy as np
import torch

from pcm_plugin.models.backbones import OpenCLIPBackbone
from pcm_plugin.models.functional.patch_attention import PATCH_MODES
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
    modes = {
        f"patch accuracy, {mode}": quality.patch_accuracy(
            OpenCLIPBackbone(clip.model_name, patch_mode=mode)
        )
        for mode in PATCH_MODES
    }
    return {
        "retrieval among 500": quality.retrieval(clip),
        "concept recall": quality.concept_recall(clip),
        "locality": quality.locality(clip),
        "cosine": quality.cosines(clip),
        **modes,
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
