"""PCM-Net: zero-shot image captioning from synthetic pairs, for MMEngine and MMPretrain."""

from pcm_plugin.packaged_files import config_file, packaged_file

__version__ = "0.1.0"

__all__ = ["__version__", "config_file", "packaged_file"]
