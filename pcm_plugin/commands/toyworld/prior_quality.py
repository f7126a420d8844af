"""Measurements of the toy world's CLIP and diffusion models."""

import statistics
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import METRICS, MODELS
from mmengine.runner import Runner
from PIL import Image
from torch.nn import functional as F

from pcm_plugin.commands.runs import read_config
from pcm_plugin.commands.toyworld.arm_inputs import make_inputs
from pcm_plugin.commands.toyworld.arms import config_of
from pcm_plugin.commands.toyworld.results import WORK, run_arm
from pcm_plugin.commands.toyworld.steps import DATA, make_data
from pcm_plugin.engine.checkpoints import load_weights
from pcm_plugin.engine.work_folder import require_best_checkpoint
from pcm_plugin.formats.clip_head import CLIP_HEAD, load_clip_head
from pcm_plugin.models.backbones import OpenCLIPBackbone
from pcm_plugin.models.functional.patch_attention import PATCH_MODES
from pcm_plugin.toyworld.captions import annotate
from pcm_plugin.toyworld.prior import quality
from pcm_plugin.toyworld.prior.compositions import build_tasks, share_right
from pcm_plugin.toyworld.prior.judge import (
    balanced_threshold,
    found_share,
    labels_of,
    predict,
    train_judge,
)
from pcm_plugin.toyworld.prior.web import load_web
from pcm_plugin.toyworld.render import render
from pcm_plugin.toyworld.scene import TOWN, scenes
from pcm_plugin.toyworld.truth import named_things
from pcm_plugin.toyworld.world import unseen_scenes

_PROMPTS = 100
"""Prompts of each task of GenEval."""
_SEEDS = 5
"""Trainings of the captioner."""


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
        "cosine": quality.cosines(clip),
        **modes,
    }


def measure_diffusion(
    clip: OpenCLIPBackbone,
    folder: Path,
    cache: Path,
    count: int,
    steps: int,
    guidances: Sequence[float],
) -> dict:
    """Return the measurements of real pictures and of synthetic images with each guidance.

    Args:
        clip: The CLIP.
        folder: Folder of the pipeline.
        cache: Folder of the toy web and of the judge, which is trained if it is not there.
        count: Number of training captions of the town.
        steps: Diffusion steps.
        guidances: Guidance scales.
    """
    true_scenes = list(islice(scenes(TOWN, "train", count, 7), count))
    captions = [annotate(s, TOWN.style, f"diffusion/{i}", 1)[0] for i, s in enumerate(true_scenes)]
    named = [named_things(caption) for caption in captions]
    tasks = build_tasks(_PROMPTS)
    judge = train_judge(load_web(cache / "web"), cache / "judge.safetensors")
    unseen = unseen_scenes(500, seed=4)
    probs = predict(judge, _pixels(_render(unseen, "judge"))).kinds
    depicted = labels_of(unseen)[:, : probs.shape[1]]
    threshold = balanced_threshold(probs, depicted)
    right = (probs > threshold) & depicted.bool()

    def measure(images: list[Image.Image], of_tasks: dict[str, list[Image.Image]]) -> dict:
        found = predict(judge, _pixels(images)).kinds
        shares = {
            name: share_right(tasks[name], predict(judge, _pixels(pictures)), threshold)
            for name, pictures in of_tasks.items()
        }
        scores = quality.clip_scores(clip, _encode(clip, images), captions)
        return {
            "named things found": 100 * found_share(found, named, threshold),
            "CLIP score": scores.mean().item(),
            **{name: 100 * share for name, share in shares.items()},
        }

    real = _render(true_scenes, "diffusion")
    report = {
        "judge on unseen real pictures": {
            "threshold": threshold,
            "precision and recall": 100 * (right.sum() / depicted.sum()).item(),
        },
        "real pictures": measure(
            real,
            {name: _render([t.scene for t in some], name) for name, some in tasks.items()},
        ),
    }
    generate = _pipeline(folder, steps)
    for guidance in guidances:
        images = generate(captions, guidance)
        of_tasks = {
            name: generate([t.prompt for t in some], guidance) for name, some in tasks.items()
        }
        report[f"synthetic images, guidance {guidance:g}"] = measure(images, of_tasks)
    # The images of the last scale.
    found = predict(judge, _pixels(images)).kinds
    shuffled = quality.shuffled(captions)
    report["random captions"] = {
        "named things found": 100 * found_share(found, quality.shuffled(named), threshold),
        "CLIP score": quality.clip_scores(clip, _encode(clip, real), shuffled).mean().item(),
    }
    return report


def _render(some_scenes: Sequence[Any], seed: str) -> list[Image.Image]:
    return [render(scene, f"{seed}/{i}").image for i, scene in enumerate(some_scenes)]


def _pixels(images: Sequence[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images])


def _encode(clip: OpenCLIPBackbone, images: Sequence[Image.Image]) -> torch.Tensor:
    batches = [images[i : i + 50] for i in range(0, len(images), 50)]
    return torch.cat([clip(torch.stack([clip.preprocess(i) for i in b]))[1] for b in batches])


def _pipeline(folder: Path, steps: int) -> Callable[[list[str], float], list[Image.Image]]:
    """Return a function that generates an image per prompt with a guidance scale."""
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging

    # Otherwise it warns for each caption that is longer than the 28 tokens of the toy tokenizer.
    logging.set_verbosity_error()
    pipeline = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)

    def generate(prompts: list[str], guidance: float) -> list[Image.Image]:
        generator = torch.Generator().manual_seed(0)
        images: list[Image.Image] = []
        for start in range(0, len(prompts), 25):
            images += pipeline(
                prompts[start : start + 25],
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=generator,
            ).images
        return images

    return generate


def measure_captioner(processes: int) -> dict:
    """Return the CIDEr of DeCap on the class token and on the mean of the patches, in the town.

    As in Patch-ioner (Bianchi et al., 2025), the mean of the projected patches takes the place of
    the global feature. DeCap is trained on captions alone, so the features differ in the test only.
    Data and trainings are those of ``pcm results`` and are made if they are not there.
    """
    make_data(processes)
    make_inputs(["decap"], processes)
    cfg = read_config(config_of("decap"), [], ("test",))
    cfg.test_dataloader.dataset.features = "patch"
    loader = Runner.build_dataloader(cfg.test_dataloader)
    head = load_clip_head(DATA / "town" / "test_store" / CLIP_HEAD)
    ciders: dict[str, list[float]] = {"class token": [], "mean of the patches": []}
    for seed in range(_SEEDS):
        run_arm("decap", seed)
        model = MODELS.build(cfg.model)
        load_weights(model, require_best_checkpoint(WORK / "decap" / f"seed{seed}"))
        model.eval()
        for name, of_seeds in ciders.items():
            metric = METRICS.build(cfg.test_evaluator)
            for batch in loader:
                if name != "class token":
                    patches = quality.joint_patches(batch["patch_feats"], head)
                    batch["global_feats"] = F.normalize(patches.mean(1), dim=-1)
                metric.process(batch, model.val_step(batch))
            of_seeds.append(metric.evaluate(len(loader.dataset))["caption/CIDEr"])
    means = {name: statistics.mean(of_seeds) for name, of_seeds in ciders.items()}
    share = 100 * means["mean of the patches"] / means["class token"]
    return {"CIDEr of DeCap": {**means, "share": share, "seeds": _SEEDS}}
