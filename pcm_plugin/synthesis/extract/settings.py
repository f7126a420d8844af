"""Settings of feature extraction."""

from dataclasses import dataclass
from typing import Any

from pcm_plugin.errors import UserError
from pcm_plugin.models.backbones import OpenCLIPBackbone
from pcm_plugin.models.backbones.clip_weights import model_identity
from pcm_plugin.models.backbones.weights_file import weights_identity
from pcm_plugin.models.functional.patch_attention import check_patch_mode
from pcm_plugin.synthesis.extract.annotation_scores import check_clip_score_source

DTYPES = ("float16", "bfloat16", "float32")
"""Choices of the stored type."""


@dataclass(frozen=True)
class ExtractSettings:
    """Settings on which features depend, in addition to images and captions.

    Attributes:
        model: Name of an open_clip model, or ``'local-dir:FOLDER'``.
        pretrained: Weights: a tag of open_clip, or a file. None if ``model`` includes them.
        pool: Side of the windows over which patches are averaged. The released ViT-L/14 features
            have 2. Defaults to 1.
        patch_mode: Attention of CLIP's last block for the patch features, see
            :class:`.OpenCLIPBackbone`. Defaults to ``'plain'``.
        dtype: One of :data:`DTYPES`. Defaults to ``'float16'``.
        caption_template: Text that CLIP encodes for a caption, with one ``{}`` for the caption.
            Defaults to ``'{}'``. The authors of CLIPScore use ``'A photo depicts {}'``.
        patches: Whether to store patch features, which take nearly all of a store's size.
            Refinement and captioners with ``features='global'`` need none. Defaults to True.
        clip_score_source: For annotations that have CLIP scores: ``'annotation'`` to keep them,
            ``'model'`` to compute new ones, or ``'auto'`` to keep them if this CLIP made them; see
            :func:`~pcm_plugin.synthesis.extract.annotation_scores.choose_clip_scores`. Defaults to
            ``'auto'``.

    Raises:
        UserError: If a setting is not one of its choices, or the template has not one ``{}``.
    """

    model: str
    pretrained: str | None = None
    pool: int = 1
    patch_mode: str = "plain"
    dtype: str = "float16"
    caption_template: str = "{}"
    patches: bool = True
    clip_score_source: str = "auto"

    def __post_init__(self) -> None:
        check_clip_score_source(self.clip_score_source)
        check_dtype(self.dtype)
        check_patch_mode(self.patch_mode)
        if self.caption_template.count("{}") != 1:
            raise UserError(
                f"caption_template must contain '{{}}' once, got {self.caption_template!r}"
            )

    def load_clip(self) -> OpenCLIPBackbone:
        """Load the CLIP; see :class:`.OpenCLIPBackbone` for its errors."""
        return OpenCLIPBackbone(self.model, self.pretrained, self.pool, self.patch_mode)

    def as_record(self) -> dict[str, Any]:
        """Return the settings as JSON; local models and weights are identified by their content."""
        record = {
            **self.__dict__,
            "model": model_identity(self.model),
            "pretrained": weights_identity(self.pretrained),
        }
        del record["clip_score_source"]  # recorded only where annotations have scores
        for name, default in (("patches", True), ("patch_mode", "plain")):
            if record[name] == default:  # only other values are recorded
                del record[name]
        return record


def check_dtype(dtype: str) -> None:
    """Refuse a type in which features cannot be stored.

    Raises:
        UserError: If it is not one of :data:`DTYPES`.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
