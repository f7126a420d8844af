"""PCM-Net: zero-shot image captioning from synthetic pairs, for MMEngine and MMPretrain."""

__version__ = "0.1.0"
