"""Affinity maps: how close each patch of an image is to each of its concepts."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont, ImageOps
from PIL.ImageFont import FreeTypeFont
from PIL.ImageFont import ImageFont as BitmapFont
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.visualization.sheet import SheetEntry, concept_colours

_PAPER, _INK, _SOFT = "#eceef1", "#14181f", "#59626f"
_GAP, _NAME_HEIGHT, _SCALE_HEIGHT = 12, 24, 26
_SCALE_WIDTH = 120


def affinity_maps(
    entry_image: Image.Image,
    affinity: Tensor,
    words: Sequence[str | tuple[str, float]],
    grid: tuple[int, int] = (7, 7),
    side: int = 136,
    columns: int = 5,
    alpha: float = 0.7,
    colour_map: str = "viridis",
    font: str | None = None,
) -> Image.Image:
    """Draw the affinity of an image's patches with its concepts as heat maps over the image.

    All maps of an image share one scale, from its lowest affinity to its highest, which stands
    under them: a concept that is nowhere looks so. The image is grey under the maps, so that every
    colour is an affinity.

    Args:
        entry_image: The image. What CLIP sees, the largest square in its middle, is shown.
        affinity: (N, K) float, cosine of each patch, row by row, with each concept.
        words: K names of the concepts, or names with probabilities, as in ``SheetEntry.concepts``.
        grid: Rows and columns of the patches, N in all. Defaults to 7 x 7, that of ViT-B/32.
        side: Side of a map in pixels. Defaults to 136: a row of five is as wide as a card of
            :func:`contact_sheet`.
        columns: Most maps beside each other. Defaults to 5.
        alpha: Share of the heat map in the picture, 0 to 1. Defaults to 0.7.
        colour_map: One of Matplotlib's. Defaults to ``'viridis'``, in which equal steps of
            affinity look equal, to colour-blind readers too.
        font: A TrueType file, for scripts that Pillow's own font lacks.

    Returns:
        The maps, RGB, in the order of ``words``, in rows; without a margin around them.

    Raises:
        UserError: If sizes do not fit each other, an affinity is no number, or an argument is out
            of range.
    """
    _check(affinity, words, grid, side, columns, alpha, colour_map)
    named = [word if isinstance(word, tuple) else (word, None) for word in words]
    colours = concept_colours(SheetEntry(entry_image, "", (), [(name, 0.0) for name, _ in named]))
    type_of = _font(font, 13)
    square = ImageOps.fit(entry_image.convert("RGB"), (side, side), Image.Resampling.LANCZOS)
    grey = square.convert("L").convert("RGB")
    values = affinity.detach().cpu().double().numpy()
    low, high = float(values.min()), float(values.max())
    heats = _heats(values, low, high, grid, colour_map)

    columns = min(columns, len(named))
    rows = -(-len(named) // columns)
    cell = side + _NAME_HEIGHT
    width = columns * (side + _GAP) - _GAP
    maps = Image.new("RGB", (width, rows * (cell + _GAP) - _GAP + _SCALE_HEIGHT), _PAPER)
    draw = ImageDraw.Draw(maps)
    for k, ((name, probability), heat) in enumerate(zip(named, heats, strict=True)):
        row, column = divmod(k, columns)
        x, y = column * (side + _GAP), row * (cell + _GAP)
        _name(draw, (x, y), side, name, probability, colours[name], type_of)
        over = heat.resize((side, side), Image.Resampling.NEAREST)
        maps.paste(Image.blend(grey, over, alpha), (x, y + _NAME_HEIGHT))
    _scale(draw, maps, (low, high), colour_map, type_of)
    return maps


def _check(
    affinity: Tensor,
    words: Sequence[str | tuple[str, float]],
    grid: tuple[int, int],
    side: int,
    columns: int,
    alpha: float,
    colour_map: str,
) -> None:
    shape = tuple(affinity.shape)
    if len(shape) != 2 or not all(shape):
        raise UserError(f"affinity of shape {shape}: give (N, K), patches by concepts")
    if len(words) != shape[1]:
        raise UserError(
            f"{len(words)} words for affinity of shape {shape}: give {shape[1]}, one a column"
        )
    if grid[0] * grid[1] != shape[0]:
        raise UserError(
            f"grid={tuple(grid)} has {grid[0] * grid[1]} patches but affinity of shape {shape} has "
            f"{shape[0]}: give the rows and columns of the CLIP that made the features"
        )
    if not affinity.isfinite().all():
        raise UserError("affinity has values that are no numbers: the model may have diverged")
    if side < max(grid):
        raise UserError(f"side={side}: give at least {max(grid)}, a pixel a patch")
    if columns < 1:
        raise UserError(f"columns={columns}: give at least 1")
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha={alpha}: give a share, 0 to 1")
    if colour_map not in colormaps:
        raise UserError(f"colour_map={colour_map!r}: give one of Matplotlib's, such as 'viridis'")


def _heats(
    values: np.ndarray, low: float, high: float, grid: tuple[int, int], colour_map: str
) -> list[Image.Image]:
    """A picture of one pixel a patch for each column of (N, K)."""
    shares = (values - low) / (high - low) if high > low else np.zeros_like(values)
    colours = colormaps[colour_map](shares.T.reshape(-1, *grid), bytes=True)[..., :3]
    return [Image.fromarray(np.ascontiguousarray(heat)) for heat in colours]


def _name(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    side: int,
    name: str,
    probability: float | None,
    colour: str,
    font: FreeTypeFont | BitmapFont,
) -> None:
    x, middle = corner[0], corner[1] + 11
    room = side - 16
    if probability is not None:
        share = f"{100 * probability:.0f} %"
        draw.text((x + side, middle), share, _SOFT, font, anchor="rm")
        room -= round(font.getlength(share)) + 6
    if font.getlength(name) > room:
        while name and font.getlength(f"{name}…") > room:
            name = name[:-1]
        name = f"{name}…"
    draw.rounded_rectangle((x, middle - 5, x + 10, middle + 5), 2, colour)
    draw.text((x + 16, middle), name, _INK, font, anchor="lm")


def _scale(
    draw: ImageDraw.ImageDraw,
    maps: Image.Image,
    ends: tuple[float, float],
    colour_map: str,
    font: FreeTypeFont | BitmapFont,
) -> None:
    """A bar of all colours between the affinities that they stand for, at the lower left."""
    middle = maps.height - 8
    low, high = (f"{end:.2f}" for end in ends)
    left = round(font.getlength(low)) + 8
    right = round(font.getlength(high)) + 8
    width = min(_SCALE_WIDTH, maps.width - left - right)
    if width < 2:
        return
    ramp = np.linspace(0, 1, width)[None].repeat(10, 0)
    bar = np.ascontiguousarray(colormaps[colour_map](ramp, bytes=True)[..., :3])
    draw.text((0, middle), low, _SOFT, font, anchor="lm")
    maps.paste(Image.fromarray(bar), (left, middle - 5))
    draw.text((left + width + 8, middle), high, _SOFT, font, anchor="lm")
    what = "cosine of patch and concept"
    x = left + width + right + 6
    if x + font.getlength(what) <= maps.width:
        draw.text((x, middle), what, _SOFT, font, anchor="lm")


def _font(font: str | None, size: int) -> FreeTypeFont | BitmapFont:
    return ImageFont.truetype(font, size) if font else ImageFont.load_default(size)
