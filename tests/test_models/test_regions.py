"""Weights of patches for boxes and points, against the preprocessing of CLIP itself."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pcm_plugin.errors import UserError
from pcm_plugin.models import OpenCLIPBackbone
from pcm_plugin.models.functional.regions import (
    box_weights,
    patch_grid,
    point_weights,
    pool_patches,
)
from tests.builders import build_clip

GRID = patch_grid((80, 40), (4, 4), "shortest", (4, 4))  # patches of 10 pixels from x = 20 to 60


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("size", [(16, 16), (90, 61), (40, 130), (7, 5)])
def test_the_patches_are_where_the_preprocessing_puts_them(mode, size):
    """A white box on black lights the patches by their weights."""
    import open_clip

    preprocess = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(size=64, resize_mode=mode, interpolation="bilinear"),
        is_train=False,
    )
    width, height = size
    x0, y0, x1, y1 = width // 3, height // 4, width - width // 5, height - height // 3
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y0:y1, x0:x1] = 255
    seen = preprocess(Image.fromarray(pixels))[0]
    seen = seen - preprocess(Image.fromarray(0 * pixels))[0]
    expected = F.avg_pool2d(seen[None], 16).flatten()
    found = box_weights((x0, y0, x1, y1), patch_grid(size, (64, 64), mode, (4, 4)))
    assert float((found - expected / expected.sum()).abs().max()) < 0.02


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("defer", [True, False])
def test_the_backbone_knows_how_it_resizes(tmp_path, mode, defer):
    import json

    name = build_clip(tmp_path / "clip")
    path = tmp_path / "clip" / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["preprocess_cfg"] = {
        **{"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"},
        "resize_mode": mode,
    }
    path.write_text(json.dumps(config))
    assert OpenCLIPBackbone(name, defer_text=defer).resize_mode == mode


def test_patches_count_by_their_covered_share():
    weights = box_weights((25, 10, 50, 35), GRID).view(4, 4)
    columns, rows = torch.tensor([0.5, 1, 1, 0]), torch.tensor([0, 1, 1, 0.5])
    expected = rows[:, None] * columns
    torch.testing.assert_close(weights, expected / expected.sum())
    # What the crop cuts off does not count.
    assert torch.equal(box_weights((0, 0, 30, 40), GRID), box_weights((20, 0, 30, 40), GRID))
    # Annotations may end one pixel outside of the image.
    assert torch.equal(box_weights((20, -1, 60, 41), GRID), torch.full((16,), 1 / 16))


def test_a_gaussian_lowers_the_weight_of_the_border():
    weights = box_weights((20, 0, 60, 40), GRID, gaussian_variance=0.5).view(4, 4)
    places = torch.tensor([-0.75, -0.25, 0.25, 0.75])
    expected = (-(places[:, None] ** 2 + places**2) / 0.5).exp()
    torch.testing.assert_close(weights, expected / expected.sum())
    # The part of a patch that is covered counts, not its center.
    half = box_weights((30, 0, 45, 10), GRID, gaussian_variance=0.5).view(4, 4)[0]
    expected = torch.tensor([0, 10 * np.exp(-((1 / 3) ** 2) / 0.5), 0, 0])
    expected[2] = 5 * np.exp(-((2 / 3) ** 2) / 0.5)
    torch.testing.assert_close(half, (expected / expected.sum()).float())


@pytest.mark.parametrize(
    ("point", "patch"), [((20, 0), 0), ((59.9, 39.9), 15), ((30, 9.9), 1), ((29, 10), 4)]
)
def test_a_point_is_the_patch_that_contains_it(point, patch):
    assert torch.equal(point_weights(point, GRID), F.one_hot(torch.tensor(patch), 16).float())


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((30, 10, 30, 20), "must have x0 < x1 and y0 < y1, got 30 10 30 20"),
        ((50, 10, 30, 20), "must have x0 < x1 and y0 < y1, got 50 10 30 20"),
        ((30, 10, 90, 20), "inside of the image of 80 x 40 pixels, got 30 10 90 20"),
        ((-3, 10, 30, 20), "inside of the image of 80 x 40 pixels, got -3 10 30 20"),
        ((0, 10, 15, 20), "the box 0 10 15 20 is outside of 20 0 60 40, the part of the image"),
        ((float("nan"), 0, 1, 1), "got nan 0 1 1"),
        ((0, float("-inf"), 1, 1), "got 0 -inf 1 1"),
        ((1, 2, 3), r"must be the numbers X0 Y0 X1 Y1 in pixels, got \[1, 2, 3\]"),
    ],
)
def test_invalid_boxes_are_named(box, message):
    with pytest.raises(UserError, match=message):
        box_weights(box, GRID)


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ((80, 10), "inside of the image of 80 x 40 pixels, got 80 10"),
        ((30, -0.1), "inside of the image of 80 x 40 pixels, got 30 -0.1"),
        ((60, 10), "the point 60 10 is outside of 20 0 60 40, the part of the image of 80 x 40"),
        ((1,), r"must be the numbers X Y in pixels, got \[1\]"),
    ],
)
def test_invalid_points_are_named(point, message):
    with pytest.raises(UserError, match=message):
        point_weights(point, GRID)


def test_other_settings_are_named():
    with pytest.raises(UserError, match=r"`resize_mode` must be one of shortest, .* got `'crop'`"):
        patch_grid((8, 8), (4, 4), "crop", (2, 2))
    with pytest.raises(UserError, match="`gaussian_variance` must be above 0, got `0`"):
        box_weights((20, 0, 60, 40), GRID, gaussian_variance=0)


def test_regions_are_normalized_means_of_patches_that_are_not():
    patches = torch.tensor([[4.0, 0.0], [0.0, 1.0], [7.0, 7.0]])
    found = pool_patches(patches, torch.tensor([[0.5, 0.5, 0], [0, 1, 0]]))
    torch.testing.assert_close(found, F.normalize(torch.tensor([[4.0, 1.0], [0.0, 1.0]]), dim=-1))


@pytest.mark.parametrize("kind", ["plain", "siglip"])
def test_the_backbone_projects_patches_and_changes_its_mode(tmp_path, kind):
    name = build_clip(tmp_path / "clip", kind=kind)
    clip = OpenCLIPBackbone(name, defer_text=True)
    images = torch.randn(2, 3, 16, 16)
    patches, _ = clip(images)
    projected = clip.project_patches(patches)
    if kind == "siglip":
        assert projected is patches
        with pytest.raises(UserError, match="`patch_mode` must be 'plain' for the image tower"):
            clip.set_patch_mode("sclip")
        assert clip.patch_mode == "plain"
        return
    head = clip.clip_head()
    normed = F.layer_norm(patches, (16,), head["ln_post.weight"], head["ln_post.bias"])
    torch.testing.assert_close(projected, normed @ head["proj"])
    clip.set_patch_mode("sclip")
    expected, _ = OpenCLIPBackbone(name, patch_mode="sclip")(images)
    assert torch.equal(clip(images)[0], expected)
    assert not torch.equal(expected, patches)
    clip.set_patch_mode("plain")
    torch.testing.assert_close(clip(images)[0], patches)
