"""mmpretrain's data sample."""

from pcm_plugin.mm_packages import require_mm_packages

require_mm_packages()

from mmpretrain.structures import DataSample

__all__ = ["DataSample"]
