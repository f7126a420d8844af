"""Pictures and web pages of captioned images."""

from typing import TYPE_CHECKING

from pcm_plugin.lazy_exports import lazy_exports
from pcm_plugin.mm_packages import require_mm_packages

require_mm_packages()

if TYPE_CHECKING:
    from pcm_plugin.visualization.affinity import affinity_maps
    from pcm_plugin.visualization.entry import SheetEntry, concepts_of_sample, mixed_patches
    from pcm_plugin.visualization.mixup_hook import MixupVisualizationHook
    from pcm_plugin.visualization.mixup_image import draw_mixup
    from pcm_plugin.visualization.page import captions_page
    from pcm_plugin.visualization.sheet import contact_sheet, save_sheet

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

__getattr__ = lazy_exports(
    __name__,
    {
        "MixupVisualizationHook": "mixup_hook",
        "SheetEntry": "entry",
        "affinity_maps": "affinity",
        "captions_page": "page",
        "concepts_of_sample": "entry",
        "contact_sheet": "sheet",
        "draw_mixup": "mixup_image",
        "mixed_patches": "entry",
        "save_sheet": "sheet",
    },
)
