"""Data sets of synthetic pairs."""

from pcm_plugin.mm_packages import require_mm_packages

require_mm_packages()

from pcm_plugin.datasets.synth_caption import SynthCaptionDataset
from pcm_plugin.datasets.synth_image import SynthImageDataset

__all__ = ["SynthCaptionDataset", "SynthImageDataset"]
