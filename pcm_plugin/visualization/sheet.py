"""Contact sheets: what a captioner said of images, what PCM found in them and where it mixed."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from PIL.ImageFont import FreeTypeFont
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.formats.atomic_io import write_bytes
from pcm_plugin.structures import DataSample

_PAPER, _CARD, _LINE = "#eceef1", "#ffffff", "#d5d9df"
_INK, _SOFT, _FAINT = "#14181f", "#59626f", "#e8ebef"
# Okabe and Ito's colours without black and yellow: told apart by colour-blind readers too.
_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_PAD, _GAP, _TEXT_WIDTH = 16, 14, 400
_Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class SheetEntry:
    """One image of a contact sheet.

    Attributes:
        image: The image. What CLIP sees, the largest square in its middle, is shown.
        caption: What the captioner said.
        references: What people said, if known.
        concepts: The concepts found, the likeliest first, each with its probability.
        patches: The mixed patches: index in the grid, row by row, and the concept of highest
            affinity.
        title: A name for the image.
    """

    image: Image.Image
    caption: str
    references: Sequence[str] = ()
    concepts: Sequence[tuple[str, float]] = ()
    patches: Sequence[tuple[int, str]] = ()
    title: str = ""


@dataclass(frozen=True)
class _Style:
    side: int
    font: str | None
    fonts: dict[int, FreeTypeFont | ImageFont.ImageFont] = field(default_factory=dict)

    def of(self, size: int) -> FreeTypeFont | ImageFont.ImageFont:
        if size not in self.fonts:
            self.fonts[size] = (
                ImageFont.truetype(self.font, size) if self.font else ImageFont.load_default(size)
            )
        return self.fonts[size]


def contact_sheet(
    entries: Sequence[SheetEntry],
    grid: tuple[int, int] = (7, 7),
    columns: int = 2,
    title: str = "",
    side: int = 280,
    font: str | None = None,
) -> Image.Image:
    """Draw images with their captions, concepts and mixed patches.

    Each concept has a colour, in its bar and in the outline of the patches that were mixed with
    it; adjacent patches of one concept share an outline and a label.

    Args:
        entries: The images, in reading order.
        grid: Rows and columns of the patches. Defaults to 7 x 7, that of ViT-B/32.
        columns: Images beside each other. Defaults to 2.
        title: A line over the sheet.
        side: Side of an image on the sheet, in pixels. Defaults to 280.
        font: A TrueType file, for scripts that Pillow's own font lacks.

    Returns:
        The sheet, RGB.

    Raises:
        UserError: If there are no entries, or a patch is outside the grid.
    """
    if not entries:
        raise UserError("no entries: a contact sheet needs at least one")
    style = _Style(side, font)
    cards = [_card(entry, grid, style) for entry in entries]
    rows = [cards[start : start + columns] for start in range(0, len(cards), columns)]
    heights = [max(card.height for card in row) for row in rows]
    head = 56 if title else 0
    width = _GAP + min(columns, len(cards)) * (cards[0].width + _GAP)
    sheet = Image.new("RGB", (width, head + _GAP + sum(h + _GAP for h in heights)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((_GAP + 2, 20), title, _INK, style.of(26))
    y = head + _GAP
    for row, height in zip(rows, heights, strict=True):
        for column, card in enumerate(row):
            x = _GAP + column * (card.width + _GAP)
            box = (x, y, x + card.width - 1, y + height - 1)
            draw.rounded_rectangle(box, 8, _CARD, _LINE)
            sheet.paste(card.crop((1, 8, card.width - 1, card.height - 8)), (x + 1, y + 8))
        y += height + _GAP
    return sheet


def draw_mixup(entry: SheetEntry, grid: tuple[int, int], side: int = 448) -> Image.Image:
    """Draw an image with its mixed patches outlined and named.

    Args:
        entry: The image, its concepts and patches.
        grid: Rows and columns of the patches.
        side: Side of the picture in pixels. Defaults to 448.

    Raises:
        UserError: If a patch is outside the grid.
    """
    return _picture(entry, grid, concept_colours(entry), _Style(side, None))


def concept_colours(entry: SheetEntry) -> dict[str, str]:
    """The colour of each concept of an image, as ``#rrggbb``."""
    names = [name for name, _ in entry.concepts] + [name for _, name in entry.patches]
    return {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(dict.fromkeys(names))}


def mixed_patches(
    concept_ids: Tensor, concept_probs: Tensor, affinity: Tensor, selected: Tensor, words: list[str]
) -> tuple[list[tuple[str, float]], list[tuple[int, str]]]:
    """Put what PCMMixup did to one image into words.

    Args:
        concept_ids: (K,) indices of the concepts found.
        concept_probs: (K,) their probabilities.
        affinity: (N, K) cosine of each patch with each of them.
        selected: (N,) bool, the patches that are mixed.
        words: All concepts.

    Returns:
        ``concepts`` and ``patches`` of a :class:`SheetEntry`.
    """
    found = [words[i] for i in concept_ids.tolist()]
    nearest = affinity.argmax(-1).tolist()
    patches = [(i, found[nearest[i]]) for i in selected.nonzero().flatten().tolist()]
    return list(zip(found, concept_probs.tolist(), strict=True)), patches


def concepts_of_sample(
    sample: DataSample, words: list[str]
) -> tuple[list[tuple[str, float]], list[tuple[int, str]]]:
    """Put what a captioner noted of the mix-up in a data sample into words.

    Args:
        sample: With the fields of ``PCMNet.predict``; without those of the mix-up nothing is found,
            without its affinity no patches.
        words: All concepts.

    Returns:
        ``concepts`` and ``patches`` of a :class:`SheetEntry`.
    """
    if "pred_concept_ids" not in sample:
        return [], []
    if "pred_affinity" not in sample:
        found = [words[i] for i in sample.pred_concept_ids.tolist()]
        return list(zip(found, sample.pred_concept_probs.tolist(), strict=True)), []
    selected = torch.zeros(len(sample.pred_affinity), dtype=torch.bool)
    selected[sample.pred_selected_patches] = True
    mix = (sample.pred_concept_ids, sample.pred_concept_probs, sample.pred_affinity)
    return mixed_patches(*mix, selected, words)


def save_sheet(sheet: Image.Image, path: str | Path) -> None:
    """Write a sheet as PNG; its folder is created."""
    encoded = io.BytesIO()
    sheet.save(encoded, "PNG")
    write_bytes(Path(path), encoded.getvalue())


def _card(entry: SheetEntry, grid: tuple[int, int], style: _Style) -> Image.Image:
    """An image at the left, words at the right; cropped to what they need."""
    width = style.side + _TEXT_WIDTH + 3 * _PAD
    card = Image.new("RGB", (width, 4000), _CARD)
    draw = ImageDraw.Draw(card)
    colours = concept_colours(entry)
    card.paste(_picture(entry, grid, colours, style), (_PAD, _PAD))
    x, y = style.side + 2 * _PAD, _PAD - 4
    if entry.title:
        draw.text((x, y + 2), entry.title, _SOFT, style.of(13))
        y += 22
    y = _paragraph(draw, (x, y), entry.caption, _INK, style.of(21), 27) + 8
    for reference in entry.references:
        y = _paragraph(draw, (x, y), f"- {reference}", _SOFT, style.of(14), 19) + 2
    if entry.concepts:
        y = _bars(draw, (x, y + 12), entry.concepts, colours, style)
    return card.crop((0, 0, width, max(y, style.side + _PAD) + _PAD))


def _picture(
    entry: SheetEntry, grid: tuple[int, int], colours: dict[str, str], style: _Style
) -> Image.Image:
    side, (rows, columns) = style.side, grid
    picture = ImageOps.fit(entry.image.convert("RGB"), (side, side), Image.Resampling.LANCZOS)
    cells: dict[tuple[int, int], str] = {}
    for patch, concept in entry.patches:
        if not 0 <= patch < rows * columns:
            raise UserError(f"patch {patch} is outside the grid of {rows} x {columns}")
        cells[divmod(patch, columns)] = concept
    draw = ImageDraw.Draw(picture)
    edges = [
        (e, colours[concept]) for p, concept in cells.items() for e in _edges(cells, p, grid, side)
    ]
    for width, colour_of_all in ((5, "white"), (3, None)):
        for edge, colour in edges:
            draw.line(edge, colour_of_all or colour, width)
    taken: list[_Box] = []
    for place, concept in sorted(cells.items()):
        row, column = place
        if cells.get((row - 1, column)) == concept or cells.get((row, column - 1)) == concept:
            continue
        _label(draw, (column * side / columns, row * side / rows), concept, colours, style, taken)
    return picture


def _edges(
    cells: dict[tuple[int, int], str], place: tuple[int, int], grid: tuple[int, int], side: int
) -> list[tuple[int, int, int, int]]:
    """Lines along those edges of a patch behind which another concept, or none, begins."""
    row, column = place
    top, bottom = (round(r * side / grid[0]) for r in (row, row + 1))
    left, right = (round(c * side / grid[1]) for c in (column, column + 1))
    # A line of width 3 inside the patch: its middle lies one pixel from the edge.
    lines = {
        (row - 1, column): (left, top + 1, right - 1, top + 1),
        (row + 1, column): (left, bottom - 2, right - 1, bottom - 2),
        (row, column - 1): (left + 1, top, left + 1, bottom - 1),
        (row, column + 1): (right - 2, top, right - 2, bottom - 1),
    }
    return [line for there, line in lines.items() if cells.get(there) != cells[place]]


def _label(
    draw: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    concept: str,
    colours: dict[str, str],
    style: _Style,
    taken: list[_Box],
) -> None:
    font = style.of(13)
    width, height = font.getbbox(concept)[2] + 8, 17
    x = min(corner[0], style.side - width)
    y = corner[1]
    while any(_overlap((x, y, x + width, y + height), other) for other in taken):
        y += height
    box = (x, y, x + width, y + height)
    taken.append(box)
    draw.rectangle(box, colours[concept])
    draw.text((x + 4, y + height / 2), concept, "white", font, anchor="lm")


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _bars(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    concepts: Sequence[tuple[str, float]],
    colours: dict[str, str],
    style: _Style,
) -> int:
    x, y = corner
    font = style.of(14)
    name_width = max(font.getbbox(name)[2] for name, _ in concepts) + 12
    full = _TEXT_WIDTH - name_width - 52
    for name, probability in concepts:
        draw.text((x, y + 9), name, _INK, font, anchor="lm")
        left = x + name_width
        draw.rounded_rectangle((left, y + 3, left + full, y + 15), 3, _FAINT)
        length = round(full * min(max(probability, 0), 1))
        if length >= 3:
            draw.rounded_rectangle((left, y + 3, left + length, y + 15), 3, colours[name])
        place = (x + _TEXT_WIDTH, y + 9)
        draw.text(place, f"{100 * probability:.0f} %", _SOFT, font, anchor="rm")
        y += 22
    return y


def _paragraph(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    text: str,
    colour: str,
    font: FreeTypeFont | ImageFont.ImageFont,
    spacing: int,
) -> int:
    """Write text, broken between words; returns where the next line begins."""
    x, y = corner
    line = ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if line and font.getlength(longer) > _TEXT_WIDTH:
            draw.text((x, y), line, colour, font)
            y += spacing
            line = word
        else:
            line = longer
    draw.text((x, y), line, colour, font)
    return y + spacing
