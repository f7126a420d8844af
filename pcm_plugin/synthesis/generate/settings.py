"""What synthetic images depend on, beside their captions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import content_id

IMAGE_FORMATS = ("jpg", "png", "webp")


@dataclass(frozen=True)
class GenerateSettings:
    """What the images depend on, beside their captions.

    Attributes:
        pipeline: A diffusers pipeline: name on the hub, or local folder.
        steps: Denoising steps; None for the pipeline's own default, as below.
        guidance: Scale of classifier-free guidance.
        size: Height and width in pixels.
        scheduler: Name of a diffusers scheduler class, e.g. ``'DPMSolverMultistepScheduler'``.
        negative_prompt: What the images should not look like.
        prompt: What the pipeline reads for a caption, with one ``{}``. Defaults to ``'{}'``, the
            caption alone, as SynthImgCap has it.
        images_per_caption: Defaults to 1.
        unique: Whether to generate one image for all captions whose texts are equal, as SynthImgCap
            has it, instead of one for each caption. Defaults to False.
        dtype: ``'float32'``, ``'float16'`` or ``'bfloat16'``. Defaults to ``'float32'``.
        seed: Seed of the run. Defaults to 0.
        shard_size: Captions a shard, at most what a process that is killed loses. Defaults to 250.
        format: ``'png'``, ``'jpg'`` or ``'webp'``. Defaults to ``'jpg'``.
        quality: Of jpg and webp, from 1 to 100. Defaults to 95.

    Raises:
        MissingFileError: If the pipeline's folder does not exist or holds none.
        UserError: If another setting is out of range.
    """

    pipeline: str
    steps: int | None = None
    guidance: float | None = None
    size: int | None = None
    scheduler: str | None = None
    negative_prompt: str | None = None
    prompt: str = "{}"
    images_per_caption: int = 1
    unique: bool = False
    dtype: str = "float32"
    seed: int = 0
    shard_size: int = 250
    format: str = "jpg"
    quality: int = 95

    def __post_init__(self) -> None:
        if self.format not in IMAGE_FORMATS:
            raise UserError(f"format={self.format!r}: known are {list(IMAGE_FORMATS)}")
        if self.dtype not in ("float32", "float16", "bfloat16"):
            raise UserError(f"dtype={self.dtype!r}: give float32, float16 or bfloat16")
        if self.prompt.count("{}") != 1:
            raise UserError(f"prompt={self.prompt!r}: give it one '{{}}', where the caption goes")
        if not 1 <= self.quality <= 100:
            raise UserError(f"quality={self.quality}: give 1 to 100")
        for name in ("steps", "size", "shard_size", "images_per_caption"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name}={value}: give at least 1")
        _check_pipeline(self.pipeline)

    def as_record(self) -> dict[str, Any]:
        """The settings as JSON; a local pipeline is known by its content, not by its place."""
        record = dict(self.__dict__)
        if Path(self.pipeline).is_dir():
            record["pipeline"] = content_id(Path(self.pipeline))
        return record


def _check_pipeline(name: str) -> None:
    local = Path(name)
    hub_name = len(local.parts) <= 2 and not name.startswith((".", "/", "~"))
    if not local.is_dir() and not hub_name:
        raise MissingFileError(
            f"no folder {local}: give a local pipeline's folder, or a hub name as OWNER/NAME"
        )
    if local.is_dir() and not (local / "model_index.json").is_file():
        raise MissingFileError(f"{local} holds no diffusers pipeline: no model_index.json in it")
