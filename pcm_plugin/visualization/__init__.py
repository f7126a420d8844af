"""What a captioner saw and said, as pictures and pages."""

from pcm_plugin.visualization.affinity import affinity_maps
from pcm_plugin.visualization.mixup_hook import MixupVisualizationHook
from pcm_plugin.visualization.page import captions_page
from pcm_plugin.visualization.sheet import (
    SheetEntry,
    concepts_of_sample,
    contact_sheet,
    draw_mixup,
    mixed_patches,
    save_sheet,
)

__all__ = [
    "MixupVisualizationHook",
    "SheetEntry",
    "affinity_maps",
    "captions_page",
    "concepts_of_sample",
    "contact_sheet",
    "draw_mixup",
    "mixed_patches",
    "save_sheet",
]
