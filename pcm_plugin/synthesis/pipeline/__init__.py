"""The stages of the data engine in sequence."""

from pcm_plugin.mm_packages import require_mm_packages

require_mm_packages()
