"""Affinity maps: cosine of each patch of an image with each of its concepts, as heat maps."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.visualization.entry import SheetEntry, concept_colors
from pcm_plugin.visualization.fonts import Font, load_font
from pcm_plugin.visualization.sheet import BACKGROUND, MUTED_COLOR, TEXT_COLOR

_GAP, _NAME_HEIGHT, _SCALE_HEIGHT = 12, 24, 26
_SCALE_WIDTH = 120


def affinity_maps(
    image: Image.Image,
    affinity: Tensor,
    concepts: Sequence[str | tuple[str, float]],
    grid: tuple[int, int] = (7, 7),
    side: int = 136,
    columns: int = 5,
    alpha: float = 0.7,
    cmap: str = "viridis",
    font: str | None = None,
) -> Image.Image:
    """Draw the affinity of patches and concepts as one heat map over the image per concept.

    All maps share one scale, from the lowest to the highest affinity, which is drawn below them.
    The image is gray below the maps, so that colors represent affinities only.

    Args:
        image: The image. The map shows what CLIP sees: the largest centered square.
        affinity: (N, K) float, cosine of each patch (in row-major order) and each concept.
        concepts: K concepts, or concepts with probabilities as in ``SheetEntry.concepts``.
        grid: Rows and columns of the patches, N in total. Defaults to 7 x 7, as in ViT-B/32.
        side: Side of a map in pixels. Defaults to 136: a row of five maps is as wide as a card of
            :func:`.contact_sheet`.
        columns: Maximum number of maps per row. Defaults to 5.
        alpha: Opacity of the heat map, from 0 to 1. Defaults to 0.7.
        cmap: Name of a Matplotlib colormap. Defaults to ``'viridis'``, which is perceptually
            uniform and safe for color-blind readers.
        font: TrueType file, for scripts that Pillow's default font lacks. Defaults to None.

    Returns:
        RGB image with the maps in the order of ``concepts``, without a margin.

    Raises:
        UserError: If the shapes do not match, an affinity is not finite, or an argument is out of
            range.
    """
    _check(affinity, concepts, grid, side, columns, alpha, cmap)
    named = [concept if isinstance(concept, tuple) else (concept, None) for concept in concepts]
    colors = concept_colors(SheetEntry(image, "", (), [(name, 0.0) for name, _ in named]))
    small_font = load_font(font, 13)
    square = ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.LANCZOS)
    gray = square.convert("L").convert("RGB")
    values = affinity.detach().cpu().double().numpy()
    low, high = float(values.min()), float(values.max())
    heatmaps = _color_patches(values, low, high, grid, cmap)

    columns = min(columns, len(named))
    rows = -(-len(named) // columns)
    cell = side + _NAME_HEIGHT
    width = columns * (side + _GAP) - _GAP
    maps = Image.new("RGB", (width, rows * (cell + _GAP) - _GAP + _SCALE_HEIGHT), BACKGROUND)
    draw = ImageDraw.Draw(maps)
    for k, ((name, probability), heatmap) in enumerate(zip(named, heatmaps, strict=True)):
        row, column = divmod(k, columns)
        x, y = column * (side + _GAP), row * (cell + _GAP)
        _draw_name(draw, (x, y), side, name, probability, colors[name], small_font)
        overlay = heatmap.resize((side, side), Image.Resampling.NEAREST)
        maps.paste(Image.blend(gray, overlay, alpha), (x, y + _NAME_HEIGHT))
    _draw_scale(draw, maps, (low, high), cmap, small_font)
    return maps


def _check(
    affinity: Tensor,
    concepts: Sequence[str | tuple[str, float]],
    grid: tuple[int, int],
    side: int,
    columns: int,
    alpha: float,
    cmap: str,
) -> None:
    shape = tuple(affinity.shape)
    if len(shape) != 2 or not all(shape):
        raise UserError(f"`affinity` must have shape (patches, concepts), got {shape}")
    if len(concepts) != shape[1]:
        raise UserError(
            f"`concepts` must have one entry per column of `affinity`, got {len(concepts)} for "
            f"affinity of shape {shape}"
        )
    if grid[0] * grid[1] != shape[0]:
        raise UserError(
            f"`grid` must have {shape[0]} patches as affinity of shape {shape}, got {tuple(grid)}: "
            "pass the rows and columns of the CLIP model that computed the features"
        )
    if not affinity.isfinite().all():
        raise UserError("`affinity` must be finite, got NaN or infinity: the model may diverge")
    if side < max(grid):
        raise UserError(f"`side` must be at least {max(grid)}, one pixel per patch, got {side}")
    if columns < 1:
        raise UserError(f"`columns` must be at least 1, got {columns}")
    if not 0 <= alpha <= 1:
        raise UserError(f"`alpha` must be between 0 and 1, got {alpha}")
    if cmap not in colormaps:
        raise UserError(f"`cmap` must be a Matplotlib colormap such as 'viridis', got {cmap!r}")


def _color_patches(
    values: np.ndarray, low: float, high: float, grid: tuple[int, int], cmap: str
) -> list[Image.Image]:
    """Return one image per column of (N, K) values, with one pixel per patch."""
    shares = (values - low) / (high - low) if high > low else np.zeros_like(values)
    colors = colormaps[cmap](shares.T.reshape(-1, *grid), bytes=True)[..., :3]  # (K, rows, cols, 3)
    return [Image.fromarray(np.ascontiguousarray(pixels)) for pixels in colors]


def _draw_name(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    side: int,
    name: str,
    probability: float | None,
    color: str,
    font: Font,
) -> None:
    """Draw color, name and probability of a concept; a name that is too long is shortened."""
    x, middle = corner[0], corner[1] + 11
    max_length = side - 16
    if probability is not None:
        percent = f"{100 * probability:.0f} %"
        draw.text((x + side, middle), percent, MUTED_COLOR, font, anchor="rm")
        max_length -= round(font.getlength(percent)) + 6
    if font.getlength(name) > max_length:
        while name and font.getlength(f"{name}…") > max_length:
            name = name[:-1]
        name = f"{name}…"
    draw.rounded_rectangle((x, middle - 5, x + 10, middle + 5), 2, color)
    draw.text((x + 16, middle), name, TEXT_COLOR, font, anchor="lm")


def _draw_scale(
    draw: ImageDraw.ImageDraw,
    maps: Image.Image,
    limits: tuple[float, float],
    cmap: str,
    font: Font,
) -> None:
    """Draw a color bar with the lowest and highest affinity in the lower left corner."""
    middle = maps.height - 8
    low, high = (f"{limit:.2f}" for limit in limits)
    left = round(font.getlength(low)) + 8
    right = round(font.getlength(high)) + 8
    width = min(_SCALE_WIDTH, maps.width - left - right)
    if width < 2:
        return
    ramp = np.linspace(0, 1, width)[None].repeat(10, 0)
    bar = np.ascontiguousarray(colormaps[cmap](ramp, bytes=True)[..., :3])
    draw.text((0, middle), low, MUTED_COLOR, font, anchor="lm")
    maps.paste(Image.fromarray(bar), (left, middle - 5))
    draw.text((left + width + 8, middle), high, MUTED_COLOR, font, anchor="lm")
    label = "cosine of patch and concept"
    x = left + width + right + 6
    if x + font.getlength(label) <= maps.width:
        draw.text((x, middle), label, MUTED_COLOR, font, anchor="lm")
