"""Images of sentences, through any text-to-image pipeline of diffusers."""

import hashlib
import inspect
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from pcm_plugin.errors import UserError
from pcm_plugin.synthesis.generate.settings import GenerateSettings

_BLACK = 4 / 255


class GenerationRequest(NamedTuple):
    """An image that is wanted.

    Attributes:
        caption_id: Id of its caption.
        text: The caption.
        number: Which of the caption's images it is, from 0.
    """

    caption_id: str
    text: str
    number: int = 0


class GenerationResult(NamedTuple):
    """Result of a request.

    Attributes:
        image: The image, None if both tries failed.
        seed: Seed of the last try.
        problems: What was wrong with each try that failed.
    """

    image: Image.Image | None
    seed: int
    problems: list[str]


class ImageGenerator:
    """A pipeline with the settings of a run.

    Args:
        settings: What the images depend on.
        device: Where to work.
        offload: ``'model'`` or ``'sequential'`` moves parts of the pipeline to the GPU only while
            they work (slower, for small GPUs); None keeps all of it there.

    Raises:
        UserError: If diffusers knows no such scheduler for it, the pipeline does not take one of
            the settings, or ``offload`` is unknown or there is no GPU to offload from.
    """

    def __init__(self, settings: GenerateSettings, device: str, offload: str | None = None) -> None:
        if offload not in (None, "model", "sequential"):
            raise UserError(f"offload={offload!r}: give 'model' or 'sequential'")
        if offload is not None and not device.startswith("cuda"):
            raise UserError(f"offload={offload!r} needs a GPU, but device is {device!r}")
        self.settings = settings
        self.pipeline = load_pipeline(settings)
        self.arguments = call_arguments(self.pipeline, settings)
        if offload == "model":
            self.pipeline.enable_model_cpu_offload(device=device)
        elif offload == "sequential":
            self.pipeline.enable_sequential_cpu_offload(device=device)
        else:
            self.pipeline.to(device)

    def generate(self, requests: Sequence[GenerationRequest]) -> list[GenerationResult]:
        """Make one batch of images; those that are none get a second try with another seed."""
        results = [self._validate(*result) for result in self._run_pipeline(requests, 0)]
        again = [i for i, result in enumerate(results) if result.image is None]
        if again:
            second = self._run_pipeline([requests[i] for i in again], 1)
            for i, result in zip(again, second, strict=True):
                new = self._validate(*result)
                results[i] = new._replace(problems=results[i].problems + new.problems)
        return results

    def _run_pipeline(
        self, requests: Sequence[GenerationRequest], attempt: int
    ) -> list[tuple[np.ndarray, int, bool]]:
        settings = self.settings
        given = dict(self.arguments)
        if "negative_prompt" in given:
            given["negative_prompt"] = [given["negative_prompt"]] * len(requests)
        seeds = [image_seed(settings.seed, o.caption_id, o.number, attempt) for o in requests]
        output = self.pipeline(
            prompt=[settings.prompt.replace("{}", request.text) for request in requests],
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            output_type="np",
            **given,
        )
        flags = getattr(output, "nsfw_content_detected", None) or [False] * len(requests)
        return list(zip(output.images, seeds, map(bool, flags), strict=True))

    def _validate(self, pixels: np.ndarray, seed: int, flagged: bool) -> GenerationResult:
        problem = rejection_reason(pixels, flagged)
        if problem:
            return GenerationResult(None, seed, [problem])
        return GenerationResult(self.pipeline.numpy_to_pil(pixels)[0], seed, [])


def rejection_reason(pixels: np.ndarray, flagged: bool) -> str | None:
    """What keeps an image from being one.

    Args:
        pixels: (H, W, 3) from 0 to 1.
        flagged: Whether the pipeline's safety checker objected.

    Returns:
        The reason, None if there is none.
    """
    if flagged:
        return "safety checker"
    if not np.isfinite(pixels).all():
        return "not finite"
    if pixels.max() < _BLACK:
        return "black"
    return None


def load_pipeline(settings: GenerateSettings) -> Any:
    """Load the pipeline from safetensors files, with the scheduler of the settings.

    Raises:
        UserError: If diffusers knows no such scheduler.
    """
    import diffusers

    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        settings.pipeline, torch_dtype=getattr(torch, settings.dtype), use_safetensors=True
    )
    if settings.scheduler is not None:
        scheduler = getattr(diffusers, settings.scheduler, None)
        if not (isinstance(scheduler, type) and issubclass(scheduler, diffusers.SchedulerMixin)):
            known = sorted(kind.__name__ for kind in pipeline.scheduler.compatibles)
            raise UserError(f"scheduler={settings.scheduler!r}: this pipeline takes {known}")
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def call_arguments(pipeline: Any, settings: GenerateSettings) -> dict[str, Any]:
    """The settings that are given, by the names of the pipeline's call.

    Raises:
        UserError: If the pipeline does not take one. Some take any name and ignore it, as a latent
            consistency model does with a negative prompt.
    """
    arguments = {
        "num_inference_steps": ("steps", settings.steps),
        "guidance_scale": ("guidance", settings.guidance),
        "height": ("size", settings.size),
        "width": ("size", settings.size),
        "negative_prompt": ("negative_prompt", settings.negative_prompt or None),
    }
    taken = inspect.signature(pipeline.__call__).parameters
    for name, (setting, value) in arguments.items():
        if value is not None and name not in taken:
            raise UserError(
                f"{setting}={value!r}: {type(pipeline).__name__} has no {name}: leave it out"
            )
    return {name: value for name, (_, value) in arguments.items() if value is not None}


def image_seed(seed: int, caption_id: str, number: int = 0, attempt: int = 0) -> int:
    """Seed of an image: 63 bits of a SHA-256 of these four values and nothing else.

    Args:
        seed: The run's seed.
        caption_id: Id of the caption.
        number: Which of the caption's images it is. Defaults to 0.
        attempt: 1 for the second try of an image that failed. Defaults to 0.
    """
    parts = [str(seed), caption_id]
    if number or attempt:
        parts = [json.dumps([seed, caption_id, number, attempt])]
    digest = hashlib.sha256(":".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
