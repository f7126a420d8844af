"""Features of regions of an image: weighted means of its patches.

Patch-ioner (Bianchi et al., arXiv 2510.02898) decodes them with a captioner of CLIP features.
Regions are boxes and points in pixels of the original image, with the origin in its top left
corner. The pixel in column i covers the coordinates from i to i + 1.

Shapes: R regions, N patches in row-major order, Dc width of the joint space.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.models.functional.precision import full_precision

RESIZE_MODES = ("shortest", "squash", "longest")
"""Ways in which the preprocessing of open_clip fits an image into the input of CLIP."""

# Annotations are rounded, so that boxes may end next to the border of the image.
_TOLERANCE = 1.0  # pixels


class PatchGrid(NamedTuple):
    """Position of CLIP's patches on an image.

    Attributes:
        image_size: Width and height of the image in pixels.
        view: Rectangle (x0, y0, x1, y1) that the patches divide, in pixels of the image.
        shape: Number of rows and columns of patches.
    """

    image_size: tuple[int, int]
    view: tuple[float, float, float, float]
    shape: tuple[int, int]


def patch_grid(
    image_size: tuple[int, int],
    input_size: tuple[int, int],
    resize_mode: str,
    shape: tuple[int, int],
) -> PatchGrid:
    """Find the part of an image that CLIP sees after its preprocessing.

    The preprocessing rounds the size of the resized image, which moves the rectangle by less than
    one pixel of CLIP's input and is ignored.

    Args:
        image_size: Width and height of the image in pixels.
        input_size: Height and width of CLIP's input in pixels.
        resize_mode: ``'shortest'`` if the shorter side is resized to the input and the center of
            the longer one is cropped; ``'squash'`` if the sides are resized independently of each
            other; ``'longest'`` if the longer side is resized and the shorter one is padded.
        shape: Number of rows and columns of patches.

    Raises:
        UserError: If the mode is unknown.
    """
    if resize_mode not in RESIZE_MODES:
        raise UserError(
            f"`resize_mode` must be one of {', '.join(RESIZE_MODES)}, got `{resize_mode!r}`"
        )
    (width, height), (rows, columns) = image_size, input_size
    if resize_mode == "squash":
        return PatchGrid(image_size, (0.0, 0.0, float(width), float(height)), shape)
    choose = max if resize_mode == "shortest" else min
    scale = choose(columns / width, rows / height)
    left, top = (width - columns / scale) / 2, (height - rows / scale) / 2
    return PatchGrid(image_size, (left, top, width - left, height - top), shape)


def box_weights(
    box: Sequence[float], grid: PatchGrid, gaussian_variance: float | None = None
) -> Tensor:
    """Compute the weight of each patch in a box.

    A patch counts by the share of its area that the box covers. The released code of Patch-ioner
    counts all patches that a box touches as one.

    Args:
        box: x0, y0, x1, y1 in pixels; x1 and y1 are exclusive.
        grid: Position of the patches, of :func:`patch_grid`.
        gaussian_variance: Multiply the weights by ``exp(-(u^2 + v^2) / gaussian_variance)``, where
            u and v are the position of the center of the covered part in the box, from -1 to 1, as
            the Gaussian aggregation of Patch-ioner (0.5 there). Defaults to None, its mean.

    Returns:
        (N,) float32 with sum 1.

    Raises:
        UserError: If the box is not four numbers, is empty or reversed, is outside of the image by
            more than one pixel, or is outside of the part that CLIP sees; or the variance is not
            above 0.
    """
    x0, y0, x1, y1 = _check_count("box", box, "X0 Y0 X1 Y1")
    width, height = grid.image_size
    if not (x0 < x1 and y0 < y1):
        raise UserError(
            f"a box must have x0 < x1 and y0 < y1, got {_numbers(box)}: pass X0 Y0 X1 Y1 in pixels "
            "of the image, not width and height"
        )
    if min(x0, y0, width - x1, height - y1) < -_TOLERANCE:
        raise UserError(
            f"a box must be inside of the image of {width} x {height} pixels, got {_numbers(box)}: "
            "pass X0 Y0 X1 Y1 in pixels of the image"
        )
    if gaussian_variance is not None and not gaussian_variance > 0:
        raise UserError(
            f"`gaussian_variance` must be above 0, got `{gaussian_variance}`: pass e.g. 0.5"
        )
    axes = []
    for start, end, side, axis in ((y0, y1, height, 0), (x0, x1, width, 1)):
        start, end = max(start, 0.0), min(end, float(side))
        low, high = grid.view[1 - axis], grid.view[3 - axis]
        edges = torch.linspace(low, high, grid.shape[axis] + 1, dtype=torch.float64)
        starts, ends = edges[:-1].clamp(min=start), edges[1:].clamp(max=end)  # covered parts
        covered = (ends - starts).clamp(min=0)  # (rows,) or (columns,)
        if gaussian_variance is not None:
            place = (starts + ends - start - end) / max(end - start, 1e-9)
            covered = covered * (-(place**2) / gaussian_variance).exp()
        axes.append(covered)
    weights = (axes[0].unsqueeze(1) * axes[1]).flatten()  # (N,)
    if not weights.sum() > 0:
        raise UserError(_outside_of_view(f"the box {_numbers(box)}", grid))
    return (weights / weights.sum()).float()


def point_weights(point: Sequence[float], grid: PatchGrid) -> Tensor:
    """Compute the weights for a point: 1 for the patch that contains it, as in Patch-ioner.

    Args:
        point: x and y in pixels.
        grid: Position of the patches, of :func:`patch_grid`.

    Returns:
        (N,) float32 with sum 1.

    Raises:
        UserError: If the point is not two numbers, or is outside of the image or of the part that
            CLIP sees.
    """
    x, y = _check_count("point", point, "X Y")
    width, height = grid.image_size
    if not (0 <= x < width and 0 <= y < height):
        raise UserError(
            f"a point must be inside of the image of {width} x {height} pixels, got "
            f"{_numbers(point)}: pass X Y in pixels of the image"
        )
    left, top, right, bottom = grid.view
    if not (left <= x < right and top <= y < bottom):
        raise UserError(_outside_of_view(f"the point {_numbers(point)}", grid))
    rows, columns = grid.shape
    # Rounding may give the number of rows or columns for a point next to the end.
    row = min(int((y - top) / (bottom - top) * rows), rows - 1)
    column = min(int((x - left) / (right - left) * columns), columns - 1)
    weights = torch.zeros(rows * columns)
    weights[row * columns + column] = 1.0
    return weights


@full_precision
def pool_patches(patches: Tensor, weights: Tensor) -> Tensor:
    """Compute the features of regions as weighted means of the patches of an image.

    As in Patch-ioner, the patches are not normalized before the mean; the mean is.

    Args:
        patches: (N, Dc), patches in the joint space.
        weights: (R, N).

    Returns:
        (R, Dc) float32 of norm 1.
    """
    return F.normalize(weights @ patches, dim=-1)


def _check_count(what: str, values: Sequence[float], names: str) -> Sequence[float]:
    if len(values) != len(names.split()):
        raise UserError(f"a {what} must be the numbers {names} in pixels, got {list(values)}")
    return values


def _outside_of_view(what: str, grid: PatchGrid) -> str:
    width, height = grid.image_size
    return (
        f"{what} is outside of {_numbers(grid.view)}, the part of the image of {width} x {height} "
        "pixels that CLIP sees: crop the image around the region"
    )


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.6g}" for value in values)
