"""Inference with trained captioners, and with models of transformers to compare them with."""

from typing import TYPE_CHECKING

from pcm_plugin.lazy_exports import lazy_exports
from pcm_plugin.mm_packages import require_mm_packages

require_mm_packages()

if TYPE_CHECKING:
    from pcm_plugin.apis.image_to_text import ImageToTextModel
    from pcm_plugin.apis.inferencer import CaptionInferencer
    from pcm_plugin.apis.zoo import register_models

__all__ = ["CaptionInferencer", "ImageToTextModel", "register_models"]

__getattr__ = lazy_exports(
    __name__,
    {
        "CaptionInferencer": "inferencer",
        "ImageToTextModel": "image_to_text",
        "register_models": "zoo",
    },
)
