"""Drawing of an image with its mixed patches outlined."""

from PIL import Image, ImageDraw, ImageOps

from pcm_plugin.errors import UserError
from pcm_plugin.visualization.entry import SheetEntry, concept_colors
from pcm_plugin.visualization.fonts import load_font

_Box = tuple[float, float, float, float]
_Cells = dict[tuple[int, int], str]  # (row, column) of each mixed patch to its concept


def draw_mixup(
    entry: SheetEntry, grid: tuple[int, int], side: int = 448, font: str | None = None
) -> Image.Image:
    """Draw an image with its mixed patches outlined and labeled.

    Adjacent patches with the same concept share one outline and one label.

    Args:
        entry: The image, its concepts and patches.
        grid: Rows and columns of the patches.
        side: Side of the drawing in pixels. Defaults to 448.
        font: TrueType file for the labels. Defaults to None, Pillow's default font.

    Returns:
        RGB image of ``side`` x ``side`` pixels.

    Raises:
        UserError: If a patch is outside of the grid.
    """
    colors = concept_colors(entry)
    image = ImageOps.fit(entry.image.convert("RGB"), (side, side), Image.Resampling.LANCZOS)
    cells = _cells(entry, grid)
    draw = ImageDraw.Draw(image)
    edges = [
        (edge, colors[concept])
        for cell, concept in cells.items()
        for edge in _edges(cells, cell, grid, side)
    ]
    for edge, _ in edges:
        draw.line(edge, "white", 5)
    for edge, color in edges:
        draw.line(edge, color, 3)
    occupied: list[_Box] = []
    for (row, column), concept in sorted(cells.items()):
        if concept in (cells.get((row - 1, column)), cells.get((row, column - 1))):
            continue
        corner = (column * side / grid[1], row * side / grid[0])
        _draw_label(draw, corner, concept, colors[concept], side, font, occupied)
    return image


def _cells(entry: SheetEntry, grid: tuple[int, int]) -> _Cells:
    rows, columns = grid
    for patch, _ in entry.patches:
        if not 0 <= patch < rows * columns:
            raise UserError(
                f"patch {patch} is outside of the grid of {rows} x {columns}: pass the grid of "
                "the CLIP model that computed the features"
            )
    return {divmod(patch, columns): concept for patch, concept in entry.patches}


def _edges(
    cells: _Cells, cell: tuple[int, int], grid: tuple[int, int], side: int
) -> list[tuple[int, int, int, int]]:
    """Return lines along the edges of a patch where the neighbor has another concept or none."""
    row, column = cell
    top, bottom = (round(r * side / grid[0]) for r in (row, row + 1))
    left, right = (round(c * side / grid[1]) for c in (column, column + 1))
    # A line of width 3 inside of the patch: its center is one pixel from the edge.
    lines = {
        (row - 1, column): (left, top + 1, right - 1, top + 1),
        (row + 1, column): (left, bottom - 2, right - 1, bottom - 2),
        (row, column - 1): (left + 1, top, left + 1, bottom - 1),
        (row, column + 1): (right - 2, top, right - 2, bottom - 1),
    }
    return [line for neighbor, line in lines.items() if cells.get(neighbor) != cells[cell]]


def _draw_label(
    draw: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    color: str,
    side: int,
    font_file: str | None,
    occupied: list[_Box],
) -> None:
    """Draw a label at a corner or, where other labels are, below them; append its box to them."""
    font = load_font(font_file, 13)
    width, height = font.getbbox(text)[2] + 8, 17
    x = min(corner[0], side - width)
    y = corner[1]
    while any(_overlap((x, y, x + width, y + height), other) for other in occupied):
        y += height
    box = (x, y, x + width, y + height)
    occupied.append(box)
    draw.rectangle(box, color)
    draw.text((x + 4, y + height / 2), text, "white", font, anchor="lm")


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
