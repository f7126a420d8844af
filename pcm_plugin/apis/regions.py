"""Captions of regions of an image."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.models.captioners import Captioner
from pcm_plugin.models.decoding import DecodingConfig
from pcm_plugin.models.functional.regions import (
    box_weights,
    patch_grid,
    point_weights,
    pool_patches,
)
from pcm_plugin.structures import DataSample


def check_takes_regions(model: Captioner) -> None:
    """Check that the input of a captioner is one vector of CLIP's joint space.

    Raises:
        UserError: If it reads patches.
    """
    if model.neck.takes_patches:
        raise UserError(
            "captions of regions need a captioner whose only input is a CLIP feature, got "
            f"{type(model).__name__} with the neck {type(model.neck).__name__}, which reads the "
            "patches of the image: train DeCap (configs/decap/decap_coco.py, decap_flickr30k.py "
            "or, on your captions, `pcm make-dataset --recipe text_vitb32` and its decap.py)"
        )


def check_region_decoding(model: Captioner, decoding: DecodingConfig) -> None:
    """Check that regions can be captioned with settings of the search.

    Args:
        model: The captioner.
        decoding: Settings of the search.

    Raises:
        UserError: If there is a ``rerank_clip``, or see :meth:`.Captioner.check_decoding`.
    """
    if decoding.rerank_clip is not None:
        raise UserError(
            "`rerank_clip` must be None for captions of regions, since the second CLIP compares "
            f"captions with the whole image, got `{decoding.rerank_clip}`: leave it out, or set "
            "rerank to 'sum'"
        )
    model.check_decoding(decoding)


@torch.inference_mode()
def caption_regions(
    model: Captioner,
    image: Image.Image,
    boxes: Sequence[Sequence[float]],
    points: Sequence[Sequence[float]],
    gaussian_variance: float | None,
    decoding: DecodingConfig,
    batch_size: int,
) -> list[DataSample | UserError]:
    """Caption regions of an image, whose features are computed once.

    Args:
        model: Captioner with a backbone that passed :func:`check_takes_regions`.
        image: RGB image.
        boxes: See :func:`.box_weights`.
        points: See :func:`.point_weights`.
        gaussian_variance: See :func:`.box_weights`.
        decoding: Settings of the search.
        batch_size: Number of regions that are decoded together.

    Returns:
        The data sample of each box, then of each point, see :meth:`.Captioner.predict`; for an
        invalid one its error.
    """
    clip = model.backbone
    assert clip is not None
    grid = patch_grid(image.size, clip.image_size, clip.resize_mode, clip.grid)
    found = [_weights_or_error(box_weights, box, grid, gaussian_variance) for box in boxes]
    found += [_weights_or_error(point_weights, point, grid) for point in points]
    valid = [weights for weights in found if isinstance(weights, Tensor)]
    samples: list[DataSample] = []
    if valid:
        pixels = clip.preprocess(image).unsqueeze(0).to(next(model.parameters()).device)
        [patches] = clip.project_patches(model.extract_feat(pixels)[0])  # (N, Dc)
        feats = pool_patches(patches, torch.stack(valid).to(patches))  # (R, Dc)
        for batch in feats.split(batch_size):
            samples += model.predict(global_feats=batch, decoding=decoding)
    remaining = iter(samples)
    return [item if isinstance(item, UserError) else next(remaining) for item in found]


def _weights_or_error(
    compute: Callable[..., Tensor], region: Sequence[float], *args: Any
) -> Tensor | UserError:
    try:
        return compute(region, *args)
    except UserError as error:
        return error
