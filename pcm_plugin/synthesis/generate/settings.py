"""Settings of image generation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import content_id, sha256
from pcm_plugin.formats.rephrasings import Rephrasings
from pcm_plugin.synthesis.generate.adapters import adapter_id, check_adapters

IMAGE_FORMATS = ("jpg", "png", "webp")
"""Choices of the stored format."""

DTYPES = ("float32", "float16", "bfloat16")
"""Choices of the type in which the pipeline computes."""


@dataclass(frozen=True)
class GenerateSettings:
    """Settings on which generated images depend, in addition to the captions.

    Attributes:
        pipeline: A diffusers pipeline: name on the Hugging Face Hub, or local folder.
        steps: Denoising steps. Defaults to None: the default of the pipeline, as for all settings
            that are None.
        guidance: Scale of classifier-free guidance.
        size: Height and width in pixels.
        scheduler: Name of a diffusers scheduler class, e.g. ``'DPMSolverMultistepScheduler'``.
        negative_prompt: What the images should not look like.
        prompt: Prompt for a caption, with one ``{}`` for the caption. Defaults to ``'{}'``, the
            caption alone, as in SynthImgCap.
        images_per_caption: Images per caption. Defaults to 1.
        rephrasings: File of rephrased captions, see :mod:`pcm_plugin.formats.rephrasings`. The
            images of a caption are generated from the caption, its first text, its second text and
            so on, beginning with the caption again after the last text. The caption remains the
            text of all its images. Defaults to None, the caption for all images.
        unique: Whether to generate one image for all captions of equal text, instead of one for
            each caption. SynthImgCap has one image per distinct text. Defaults to False.
        dtype: One of :data:`DTYPES`. Defaults to ``'float32'``.
        seed: Seed of the run. Defaults to 0.
        shard_size: Captions per shard. A process that is killed loses at most one shard. Defaults
            to 250.
        format: One of :data:`IMAGE_FORMATS`. Defaults to ``'jpg'``.
        quality: Quality of jpg and webp, from 1 to 100. Defaults to 95.
        lora: LoRA weights for the pipeline: local .safetensors file, or one on the Hugging Face Hub
            as ``'OWNER/NAME/FILE.safetensors'``. Needs peft.
        lora_scale: Factor of the LoRA weights. Defaults to 1.
        textual_inversion: Embedding of a new token, which the prompt or the negative prompt must
            contain: a file as for ``lora``.

    Raises:
        MissingFileError: If the folder of the pipeline is missing or contains no pipeline, or a
            file is missing.
        UserError: If another setting is invalid.
    """

    pipeline: str
    steps: int | None = None
    guidance: float | None = None
    size: int | None = None
    scheduler: str | None = None
    negative_prompt: str | None = None
    prompt: str = "{}"
    images_per_caption: int = 1
    rephrasings: str | None = None
    unique: bool = False
    dtype: str = "float32"
    seed: int = 0
    shard_size: int = 250
    format: str = "jpg"
    quality: int = 95
    lora: str | None = None
    lora_scale: float = 1.0
    textual_inversion: str | None = None

    def __post_init__(self) -> None:
        for name in ("prompt", "negative_prompt", "rephrasings"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise UserError(
                    f"{name} must be text, got {value!r}: on a command line, put it into quotes "
                    f"inside of the shell's: \"generate.{name}='...'\""
                )
        for name, value, choices in (
            ("format", self.format, IMAGE_FORMATS),
            ("dtype", self.dtype, DTYPES),
        ):
            if value not in choices:
                raise UserError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        if self.prompt.count("{}") != 1:
            raise UserError(
                f"prompt must contain '{{}}' once, in place of the caption, got {self.prompt!r}"
            )
        if not 1 <= self.quality <= 100:
            raise UserError(f"quality must be from 1 to 100, got {self.quality}")
        for name, number in (
            ("steps", self.steps),
            ("size", self.size),
            ("shard_size", self.shard_size),
            ("images_per_caption", self.images_per_caption),
        ):
            if number is not None and number < 1:
                raise UserError(f"{name} must be at least 1, got {number}")
        if self.rephrasings is not None and not Path(self.rephrasings).is_file():
            raise MissingFileError(
                f"no file of rephrased captions at {self.rephrasings}: write it with `pcm rephrase`"
            )
        check_adapters(self.lora, self.lora_scale, self.textual_inversion)
        _check_pipeline(self.pipeline)

    def load_rephrasings(self) -> Rephrasings | None:
        """Return the rephrased captions, or None if there are none.

        Raises:
            UserError: If the file is invalid.
        """
        if self.rephrasings is None:
            return None
        return Rephrasings(self.rephrasings, self.images_per_caption)

    def as_record(self) -> dict[str, Any]:
        """Return the settings as JSON; a local pipeline or file is identified by its content."""
        record = dict(self.__dict__)
        for name in ("lora", "textual_inversion"):
            # Settings that are not in use are omitted, so that earlier folders can be continued.
            value = record.pop(name)
            if value is not None:
                record[name] = adapter_id(value)
        if self.lora is None:
            del record["lora_scale"]
        if self.rephrasings is None:
            del record["rephrasings"]
        else:
            record["rephrasings"] = f"sha256 {sha256(Path(self.rephrasings))[:16]}"
        if Path(self.pipeline).is_dir():
            record["pipeline"] = content_id(Path(self.pipeline))
        return record


def _check_pipeline(name: str) -> None:
    folder = Path(name)
    is_hub_name = len(folder.parts) <= 2 and not name.startswith((".", "/", "~"))
    if not folder.is_dir() and not is_hub_name:
        raise MissingFileError(
            f"no folder {folder}: pipeline must be a local folder, or a name on the hub as "
            "OWNER/NAME"
        )
    if folder.is_dir() and not (folder / "model_index.json").is_file():
        raise MissingFileError(f"{folder} contains no diffusers pipeline: no model_index.json")
