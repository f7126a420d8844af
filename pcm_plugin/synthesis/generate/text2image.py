"""Generation of images from text with any text-to-image pipeline of diffusers."""

import hashlib
import inspect
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from pcm_plugin.errors import UserError
from pcm_plugin.synthesis.generate.adapters import load_lora, load_textual_inversion
from pcm_plugin.synthesis.generate.settings import GenerateSettings

_BLACK = 4 / 255


class GenerationRequest(NamedTuple):
    """Request for one image.

    Attributes:
        caption_id: Id of the caption.
        text: The caption, or another text for its image.
        number: Number of the image among those of the caption, from 0.
    """

    caption_id: str
    text: str
    number: int = 0


class GenerationResult(NamedTuple):
    """Result of a request.

    Attributes:
        image: The image, or None if both attempts were rejected.
        seed: Seed of the last attempt.
        problems: Reason of each rejection.
    """

    image: Image.Image | None
    seed: int
    problems: list[str]


class ImageGenerator:
    """Diffusion pipeline with the settings of a run.

    Args:
        settings: Settings of the images.
        device: Device of the pipeline.
        offload: ``'model'`` or ``'sequential'`` moves parts of the pipeline to the GPU only while
            they compute, which is slower and needs less memory. None keeps all parts there.

    Raises:
        UserError: If the scheduler is unknown, the pipeline does not accept one of the settings,
            ``offload`` is unknown, or there is no GPU to offload from.
    """

    def __init__(self, settings: GenerateSettings, device: str, offload: str | None = None) -> None:
        if offload not in (None, "model", "sequential"):
            raise UserError(f"offload must be 'model' or 'sequential', got {offload!r}")
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
        """Generate a batch; rejected images are generated once more with another seed."""
        results = [self._validate(*result) for result in self._run_pipeline(requests, 0)]
        rejected = [i for i, result in enumerate(results) if result.image is None]
        if rejected:
            second = self._run_pipeline([requests[i] for i in rejected], 1)
            for i, output in zip(rejected, second, strict=True):
                result = self._validate(*output)
                results[i] = result._replace(problems=results[i].problems + result.problems)
        return results

    def _run_pipeline(
        self, requests: Sequence[GenerationRequest], attempt: int
    ) -> list[tuple[np.ndarray, int, bool]]:
        """Return pixels, seed and the safety checker's flag for each request."""
        settings = self.settings
        arguments = dict(self.arguments)
        if "negative_prompt" in arguments:
            arguments["negative_prompt"] = [arguments["negative_prompt"]] * len(requests)
        seeds = [image_seed(settings.seed, r.caption_id, r.number, attempt) for r in requests]
        output = self.pipeline(
            prompt=[settings.prompt.replace("{}", request.text) for request in requests],
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            output_type="np",
            **arguments,
        )
        # Pipelines without a safety checker have no flags, or None.
        flags = output.get("nsfw_content_detected") or [False] * len(requests)
        return list(zip(output.images, seeds, map(bool, flags), strict=True))

    def _validate(self, pixels: np.ndarray, seed: int, flagged: bool) -> GenerationResult:
        problem = rejection_reason(pixels, flagged)
        if problem:
            return GenerationResult(None, seed, [problem])
        return GenerationResult(self.pipeline.numpy_to_pil(pixels)[0], seed, [])


def rejection_reason(pixels: np.ndarray, flagged: bool) -> str | None:
    """Return the reason to reject a generated image, or None.

    Args:
        pixels: (H, W, 3) from 0 to 1.
        flagged: Whether the safety checker of the pipeline flagged it.
    """
    if flagged:
        return "safety checker"
    if not np.isfinite(pixels).all():
        return "not finite"
    if pixels.max() < _BLACK:
        return "black"
    return None


def load_pipeline(settings: GenerateSettings) -> Any:
    """Load the pipeline from safetensors files, with scheduler and adapters of the settings.

    Raises:
        UserError: If diffusers has no such scheduler for it, or the LoRA weights or the textual
            inversion are for another pipeline.
    """
    import diffusers

    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        settings.pipeline, torch_dtype=getattr(torch, settings.dtype), use_safetensors=True
    )
    if settings.scheduler is not None:
        scheduler = getattr(diffusers, settings.scheduler, None)
        if not (isinstance(scheduler, type) and issubclass(scheduler, diffusers.SchedulerMixin)):
            known = sorted(kind.__name__ for kind in pipeline.scheduler.compatibles)
            raise UserError(
                f"scheduler must be one of {', '.join(known)} for this pipeline, got "
                f"{settings.scheduler!r}"
            )
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    if settings.lora is not None:
        load_lora(pipeline, settings.lora, settings.lora_scale)
    if settings.textual_inversion is not None:
        prompts = f"{settings.prompt} {settings.negative_prompt or ''}"
        load_textual_inversion(pipeline, settings.textual_inversion, prompts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def call_arguments(pipeline: Any, settings: GenerateSettings) -> dict[str, Any]:
    """Return the settings that are not None, by the argument names of the pipeline's call.

    Raises:
        UserError: If the pipeline does not have one of these arguments. Some pipelines accept any
            argument and ignore it, such as a latent consistency model with a negative prompt.
    """
    arguments = {
        "num_inference_steps": ("steps", settings.steps),
        "guidance_scale": ("guidance", settings.guidance),
        "height": ("size", settings.size),
        "width": ("size", settings.size),
        "negative_prompt": ("negative_prompt", settings.negative_prompt or None),
    }
    accepted = inspect.signature(pipeline.__call__).parameters
    for name, (setting, value) in arguments.items():
        if value is not None and name not in accepted:
            raise UserError(
                f"{type(pipeline).__name__} has no argument {name}: leave out {setting}, got "
                f"{value!r}"
            )
    return {name: value for name, (_, value) in arguments.items() if value is not None}


def image_seed(seed: int, caption_id: str, number: int = 0, attempt: int = 0) -> int:
    """Return the seed of an image: 63 bits of the SHA-256 of the four arguments.

    Args:
        seed: Seed of the run.
        caption_id: Id of the caption.
        number: Number of the image among those of the caption. Defaults to 0.
        attempt: 1 for the second attempt after a rejection. Defaults to 0.
    """
    parts = [str(seed), caption_id]
    if number or attempt:
        parts = [json.dumps([seed, caption_id, number, attempt])]
    digest = hashlib.sha256(":".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
