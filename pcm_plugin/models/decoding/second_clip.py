"""A second CLIP that ranks captions, in addition to the one that the captioner was trained with."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.formats.images.image_io import read_image
from pcm_plugin.models.backbones.clip_weights import model_identity
from pcm_plugin.models.backbones.open_clip_backbone import OpenCLIPBackbone
from pcm_plugin.models.backbones.weights_file import weights_identity
from pcm_plugin.models.decoding.config import DecodingConfig
from pcm_plugin.structures import DataSample


class SecondCLIP:
    """The CLIP of ``rerank_clip``, which is loaded once.

    It is not a submodule of the captioner: its weights are neither trained nor saved.
    """

    def __init__(self) -> None:
        self._loaded: dict[tuple[str | None, str | None], OpenCLIPBackbone] = {}

    def load(self, decoding: DecodingConfig) -> OpenCLIPBackbone:
        """Return the CLIP of the settings.

        Raises:
            MissingFileError: If a local folder or a weights file is missing.
            UserError: If open_clip has no such model, or it cannot be loaded.
        """
        assert decoding.rerank_clip is not None
        name = decoding.rerank_clip, decoding.rerank_clip_pretrained
        if name not in self._loaded:
            self._loaded[name] = OpenCLIPBackbone(*name).eval()
        return self._loaded[name]


def with_clip_identity(decoding: DecodingConfig) -> DecodingConfig:
    """Return the settings of a search with the name of a second CLIP that identifies its content.

    Args:
        decoding: Settings of the search.

    Raises:
        MissingFileError: If the weights file of the CLIP is missing.
    """
    if decoding.rerank_clip is None:
        return decoding
    return decoding.updated(
        {
            "rerank_clip": model_identity(decoding.rerank_clip),
            "rerank_clip_pretrained": weights_identity(decoding.rerank_clip_pretrained),
        }
    )


@torch.no_grad()
def encode_images(clip: OpenCLIPBackbone, images: Sequence[Image.Image]) -> Tensor:
    """Compute the embeddings of images.

    Args:
        clip: The CLIP.
        images: B images in mode RGB.

    Returns:
        (B, Dc), on the device of the CLIP.
    """
    pixels = torch.stack([clip.preprocess(image) for image in images])
    return clip(pixels.to(next(clip.clip.parameters()).device))[1]


def read_images(data_samples: Sequence[DataSample] | None) -> list[Image.Image]:
    """Read the image files of data samples.

    Raises:
        UserError: If a sample names no file, or it cannot be read.
    """
    paths = [sample.get("img_path") for sample in data_samples or [DataSample()]]
    if None in paths:
        raise UserError(
            "`rerank_clip` needs the images themselves: set data_prefix of the dataset to the "
            "folder of the image files that its store names, or set rerank_clip to None"
        )
    return [read_image(path) for path in paths if path is not None]
