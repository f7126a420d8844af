"""PCM-Net, image captioning from sentences alone, as a plugin of the OpenMMLab stack."""

__version__ = "0.1.0"
