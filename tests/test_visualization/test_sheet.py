import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from pcm_plugin.visualization import SheetEntry, contact_sheet, mixed_patches, save_sheet

GRAY = Image.new("RGB", (70, 70), "#808080")
SIDE = 140


def pixels(*entries, **kwargs):
    return np.asarray(contact_sheet(entries, side=SIDE, **kwargs)).astype(int)


def picture(sheet):
    """Return the image of the only card, at a gap of 14 and a padding of 16 pixels."""
    return sheet[30 : 30 + SIDE, 30 : 30 + SIDE]


def count(sheet, color):
    return int((sheet == ImageColor.getrgb(color)).all(-1).sum())


def test_the_centered_square_of_an_image_is_shown():
    wide = Image.new("RGB", (210, 70), "red")
    wide.paste(GRAY, (70, 0))
    shown = picture(pixels(SheetEntry(wide, "a dog")))
    assert np.abs(shown[8:-8, 8:-8] - 128).max() <= 2


def test_mixed_patches_are_outlined_in_the_color_of_their_concept():
    entry = SheetEntry(GRAY, "a dog", concepts=[("dog", 0.7), ("cat", 0.2)], patches=[(8, "cat")])
    shown = picture(pixels(entry))
    changed = np.argwhere((shown != 128).any(-1))
    # Patch 8 of 7 x 7 is row 1, column 1: pixels 20 to 39. Only its label may extend beyond it.
    assert changed.min() >= 19
    assert changed[:, 0].max() <= 41
    blue = ImageColor.getrgb("#0072b2")
    for row, column in ((39, 30), (38, 25), (38, 21)):
        assert tuple(shown[row, column]) == blue
    assert (shown[38, 45:] == 128).all()


def test_adjacent_patches_of_one_concept_share_an_outline():
    def between(concept):
        """Return the border of patch 22 (rows 60 to 79, columns 20 to 39) and 29 below it."""
        shown = picture(pixels(SheetEntry(GRAY, "x", patches=[(22, "dog"), (29, concept)])))
        return shown[78:82, 26:34]

    assert (between("dog") == 128).all()
    assert (between("cat") != 128).any()


def test_bars_are_proportional_to_the_probabilities():
    half = pixels(SheetEntry(GRAY, "x", concepts=[("dog", 0.5)]))
    quarter = pixels(SheetEntry(GRAY, "x", concepts=[("dog", 0.25)]))
    none = pixels(SheetEntry(GRAY, "x", concepts=[("dog", 0.0)]))
    color = "#d55e00"
    assert count(half, color) == pytest.approx(2 * count(quarter, color), rel=0.05)
    assert count(none, color) == 0


def test_long_texts_are_wrapped_and_increase_the_height():
    def card(caption, references=()):
        return pixels(SheetEntry(GRAY, caption, references))

    low, high = card("a dog"), card("word " * 90, ["another word " * 30])
    assert high.shape[0] > low.shape[0] + 100
    assert high.shape[1] == low.shape[1]
    inside_of_the_right_margin = high[30:-30, -28:-18]
    assert (inside_of_the_right_margin == 255).all()


def test_cards_are_arranged_in_columns_below_the_title(tmp_path):
    entries = [SheetEntry(GRAY, "a dog", title=f"image {i}") for i in range(3)]
    one, two = pixels(*entries, columns=1), pixels(*entries, columns=2)
    assert one.shape[0] > 1.4 * two.shape[0]
    assert two.shape[1] > 1.9 * one.shape[1] - 40
    titled = contact_sheet(entries, side=SIDE, title="Toy world")
    assert titled.height == two.shape[0] + 56
    save_sheet(titled, tmp_path / "new" / "sheet.png")
    with Image.open(tmp_path / "new" / "sheet.png") as read:
        assert (read.format, read.size) == ("PNG", titled.size)


def test_invalid_entries_are_rejected():
    with pytest.raises(ValueError, match="`entries` must contain at least one image"):
        contact_sheet([])
    with pytest.raises(ValueError, match="patch 49 is outside of the grid of 7 x 7"):
        contact_sheet([SheetEntry(GRAY, "x", patches=[(49, "dog")])])


def test_mixed_patches_are_translated_to_words():
    concepts, patches = mixed_patches(
        torch.tensor([2, 0]),
        torch.tensor([0.75, 0.25]),
        torch.tensor([[0.1, 0.2], [0.9, 0.3], [0.0, 0.5]]),
        torch.tensor([False, True, True]),
        ["dog", "cat", "tree"],
    )
    assert concepts == [("tree", 0.75), ("dog", 0.25)]
    assert patches == [(1, "tree"), (2, "dog")]
