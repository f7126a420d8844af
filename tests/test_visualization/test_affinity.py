import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image

from pcm_plugin.visualization import affinity_maps

SIDE, TOP, GAP = 60, 24, 12
GRAY = Image.new("RGB", (70, 70), "#808080")


def heat(share):
    return (255 * np.array(colormaps["viridis"](share)[:3])).round().astype(int)


def maps(affinity, image=GRAY, grid=(2, 3), alpha=1.0, **kwargs):
    words = [f"word{k}" for k in range(affinity.shape[1])]
    drawn = affinity_maps(image, affinity, words, grid, SIDE, alpha=alpha, **kwargs)
    assert drawn.mode == "RGB"
    return np.asarray(drawn).astype(int)


def a_map(drawn, column=0, row=0):
    x, y = column * (SIDE + GAP), row * (SIDE + TOP + GAP) + TOP
    return drawn[y : y + SIDE, x : x + SIDE]


def test_the_highest_affinity_has_the_last_color():
    affinity = torch.zeros(6, 2)
    affinity[5, 0], affinity[1, 1] = 1.0, 0.5
    drawn = maps(affinity)
    first, second = a_map(drawn), a_map(drawn, column=1)
    # Patches of 30 x 20 pixels: 5 is the last of the lower row, 1 the middle of the upper one.
    assert np.abs(first[30:, 40:] - heat(1.0)).max() <= 1
    assert np.abs(first[:30] - heat(0.0)).max() <= 1
    assert np.abs(first[:, :40] - heat(0.0)).max() <= 1
    # Both maps have the same scale.
    assert np.abs(second[:30, 20:40] - heat(0.5)).max() <= 3
    assert np.abs(second[30:] - heat(0.0)).max() <= 1


def test_the_image_is_gray_below_the_map():
    image = Image.new("RGB", (90, 60), "red")
    image.paste((0, 0, 255), (0, 0, 15, 60))  # outside of the middle square
    drawn = a_map(maps(torch.zeros(6, 1), image, alpha=0.0))
    assert (drawn == 76).all()
    half = a_map(maps(torch.zeros(6, 1), image, alpha=0.5))
    assert np.abs(half - (76 + heat(0.0)) / 2).max() <= 1


def test_maps_are_arranged_in_rows():
    affinity = torch.zeros(6, 3)
    affinity[0, 2] = 1.0
    drawn = maps(affinity, columns=2)
    assert drawn.shape[1] == 2 * SIDE + GAP
    assert np.abs(a_map(drawn, column=0, row=1)[:30, :20] - heat(1.0)).max() <= 1
    one_row = maps(affinity)
    assert one_row.shape[1] == 3 * SIDE + 2 * GAP
    assert drawn.shape[0] == one_row.shape[0] + SIDE + TOP + GAP


def test_names_and_probabilities_are_above_their_map():
    def heads(*words, side=120):
        drawn = np.asarray(affinity_maps(GRAY, torch.zeros(4, len(words)), words, (2, 2), side))
        return [drawn[:TOP, k * (side + GAP) : (k + 1) * (side + GAP)] for k in range(len(words))]

    bare, likely = heads("dog")[0], heads(("dog", 0.73))[0]
    assert (bare[:, :60] == likely[:, :60]).all()
    assert (bare[:, 80:] != likely[:, 80:]).any()
    # A long name is shortened so that it does not reach the next one.
    long, _ = heads(("word" * 30, 0.73), "cat")
    paper = long[0, 0]
    assert (long[:, 120:] == paper).all()
    assert (long[:, 80:120] != paper).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"affinity": torch.zeros(49)}, r"`affinity` must have shape .*, got \(49,\)"),
        ({"affinity": torch.zeros(49, 0)}, r"`affinity` must have shape .*, got \(49, 0\)"),
        ({"concepts": ["dog"]}, r"got 1 for affinity of shape \(49, 2\)"),
        ({"grid": (8, 8)}, r"`grid` must have 49 patches .*, got \(8, 8\)"),
        ({"affinity": torch.full((49, 2), torch.nan)}, "`affinity` must be finite"),
        ({"side": 6}, "`side` must be at least 7, one pixel per patch, got 6"),
        ({"columns": 0}, "`columns` must be at least 1, got 0"),
        ({"alpha": 1.5}, "`alpha` must be between 0 and 1, got 1.5"),
        ({"cmap": "no"}, "`cmap` must be a Matplotlib colormap such as 'viridis', got 'no'"),
    ],
)
def test_invalid_arguments_are_rejected(change, message):
    arguments = dict(affinity=torch.zeros(49, 2), concepts=["dog", "cat"], grid=(7, 7)) | change
    with pytest.raises(ValueError, match=message):
        affinity_maps(GRAY, **arguments)
