"""What a captioner saw and said, as pictures and pages."""

from pcm_plugin.visualization.page import captions_page
from pcm_plugin.visualization.sheet import (
    SheetEntry,
    contact_sheet,
    draw_mix,
    mixed_patches,
    save_sheet,
)

__all__ = [
    "SheetEntry",
    "captions_page",
    "contact_sheet",
    "draw_mix",
    "mixed_patches",
    "save_sheet",
]
