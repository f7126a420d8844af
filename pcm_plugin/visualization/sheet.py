"""Contact sheets: images with captions, concepts and mixed patches in one picture."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from pcm_plugin.errors import UserError
from pcm_plugin.formats.atomic_io import write_bytes
from pcm_plugin.visualization.entry import SheetEntry, concept_colors
from pcm_plugin.visualization.fonts import Font, load_font
from pcm_plugin.visualization.mixup_image import draw_mixup

BACKGROUND, TEXT_COLOR, MUTED_COLOR = "#eceef1", "#14181f", "#59626f"
GAP = 14
"""Pixels around and between the cards of a sheet."""
_CARD_COLOR, _BORDER_COLOR, _BAR_COLOR = "#ffffff", "#d5d9df", "#e8ebef"
_PADDING, _TEXT_WIDTH = 16, 400
_MAX_CARD_HEIGHT = 4000


def contact_sheet(
    entries: Sequence[SheetEntry],
    grid: tuple[int, int] = (7, 7),
    columns: int = 2,
    title: str = "",
    side: int = 280,
    font: str | None = None,
) -> Image.Image:
    """Draw images with their captions, concepts and mixed patches.

    Each concept has one color, used for its bar and for the outline of its patches.

    Args:
        entries: The images, in reading order.
        grid: Rows and columns of the patches. Defaults to 7 x 7, as in ViT-B/32.
        columns: Images per row. Defaults to 2.
        title: Title above the images. Defaults to none.
        side: Side of an image on the sheet, in pixels. Defaults to 280.
        font: TrueType file, for scripts that Pillow's default font lacks. Defaults to None.

    Returns:
        RGB image.

    Raises:
        UserError: If there are no entries, or a patch is outside of the grid.
    """
    if not entries:
        raise UserError("`entries` must contain at least one image, got none")
    cards = [_draw_card(entry, grid, side, font) for entry in entries]
    rows = [cards[start : start + columns] for start in range(0, len(cards), columns)]
    heights = [max(card.height for card in row) for row in rows]
    head = 56 if title else 0
    width = GAP + min(columns, len(cards)) * (cards[0].width + GAP)
    sheet = Image.new("RGB", (width, head + GAP + sum(h + GAP for h in heights)), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((GAP + 2, 20), title, TEXT_COLOR, load_font(font, 26))
    y = head + GAP
    for row, height in zip(rows, heights, strict=True):
        for column, card in enumerate(row):
            x = GAP + column * (card.width + GAP)
            box = (x, y, x + card.width - 1, y + height - 1)
            draw.rounded_rectangle(box, 8, _CARD_COLOR, _BORDER_COLOR)
            sheet.paste(card.crop((1, 8, card.width - 1, card.height - 8)), (x + 1, y + 8))
        y += height + GAP
    return sheet


def save_sheet(sheet: Image.Image, path: str | Path) -> None:
    """Write a sheet as PNG. Its folder is created if it is missing."""
    encoded = io.BytesIO()
    sheet.save(encoded, "PNG")
    write_bytes(Path(path), encoded.getvalue())


def _draw_card(
    entry: SheetEntry, grid: tuple[int, int], side: int, font: str | None
) -> Image.Image:
    """Draw the image on the left and the text on the right."""
    width = side + _TEXT_WIDTH + 3 * _PADDING
    card = Image.new("RGB", (width, _MAX_CARD_HEIGHT), _CARD_COLOR)
    draw = ImageDraw.Draw(card)
    card.paste(draw_mixup(entry, grid, side, font), (_PADDING, _PADDING))
    x, y = side + 2 * _PADDING, _PADDING - 4
    if entry.title:
        draw.text((x, y + 2), entry.title, MUTED_COLOR, load_font(font, 13))
        y += 22
    y = _draw_text(draw, (x, y), entry.caption, TEXT_COLOR, load_font(font, 21), 27) + 8
    for reference in entry.references:
        y = _draw_text(draw, (x, y), f"- {reference}", MUTED_COLOR, load_font(font, 14), 19) + 2
    if entry.concepts:
        y = _draw_bars(draw, (x, y + 12), entry, load_font(font, 14))
    return card.crop((0, 0, width, max(y, side + _PADDING) + _PADDING))


def _draw_bars(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], entry: SheetEntry, font: Font
) -> int:
    """Draw the concepts and their probabilities as bars; return the y position below them."""
    x, y = corner
    colors = concept_colors(entry)
    name_width = max(font.getbbox(name)[2] for name, _ in entry.concepts) + 12
    left = x + name_width
    bar_width = _TEXT_WIDTH - name_width - 52
    for name, probability in entry.concepts:
        draw.text((x, y + 9), name, TEXT_COLOR, font, anchor="lm")
        draw.rounded_rectangle((left, y + 3, left + bar_width, y + 15), 3, _BAR_COLOR)
        length = round(bar_width * min(max(probability, 0), 1))
        if length >= 3:
            draw.rounded_rectangle((left, y + 3, left + length, y + 15), 3, colors[name])
        percent = f"{100 * probability:.0f} %"
        draw.text((x + _TEXT_WIDTH, y + 9), percent, MUTED_COLOR, font, anchor="rm")
        y += 22
    return y


def _draw_text(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    text: str,
    color: str,
    font: Font,
    spacing: int,
) -> int:
    """Draw text with line breaks between words; return the y position of the next line."""
    x, y = corner
    line = ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if line and font.getlength(longer) > _TEXT_WIDTH:
            draw.text((x, y), line, color, font)
            y += spacing
            line = word
        else:
            line = longer
    draw.text((x, y), line, color, font)
    return y + spacing
