"""Captions of regions by the inferencer, with an untrained DeCap of the toy world."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pcm_plugin.apis import CaptionInferencer
from pcm_plugin.errors import UserError
from pcm_plugin.toyworld.render import render
from pcm_plugin.toyworld.world import unseen_scenes

BOXES = [(0, 0, 112, 112), (10, 20, 60, 100), (70, 8, 104, 40)]
POINTS = [(3, 5), (100, 60)]


@pytest.fixture(scope="module")
def inferencer(decap_file):
    return CaptionInferencer(weights=decap_file, device="cpu", show_progress=False)


@pytest.fixture(scope="module")
def picture():
    return render(unseen_scenes(1, minimum=2)[0], 0).image


def test_a_region_gets_the_caption_of_the_mean_of_its_patches(inferencer, picture):
    found = inferencer.regions(picture, BOXES, POINTS, num_captions=2)
    json.dumps(found)
    assert [row.get("box") for row in found] == [*map(list, BOXES), None, None]
    assert [row.get("point") for row in found] == [None, None, None, *map(list, POINTS)]
    clip, model = inferencer.backbone, inferencer.model
    with torch.inference_mode():
        [patches] = clip.project_patches(clip(clip.preprocess(picture)[None])[0])
        cells = patches.view(7, 7, -1)  # of 16 pixels each
        means = [patches.mean(0), None, None, cells[0, 0], cells[3, 6]]
        for row, mean in zip(found, means, strict=True):
            if mean is None:
                continue
            feats = F.normalize(mean, dim=-1)[None]
            [sample] = model.predict(global_feats=feats, decoding=model.decoding)
            assert row["caption"] == sample.pred_caption
            assert row["log_prob"] == pytest.approx(sample.pred_score, abs=1e-4)
    assert all(len(row["captions"]) == 2 for row in found)
    assert len({row["log_prob"] for row in found}) > 2


def test_the_features_of_the_image_are_computed_once(inferencer, picture, monkeypatch):
    calls = []
    extract = inferencer.model.extract_feat
    monkeypatch.setattr(
        inferencer.model, "extract_feat", lambda x: calls.append(x.shape) or extract(x)
    )
    together = inferencer.regions(picture, BOXES, POINTS)
    assert calls == [(1, 3, 112, 112)]
    alone = inferencer.regions(picture, BOXES, POINTS, batch_size=1)
    assert [row["caption"] for row in alone] == [row["caption"] for row in together]
    assert inferencer.regions(picture) == []


def test_files_and_arrays_are_images_too(inferencer, picture, tmp_path):
    picture.save(tmp_path / "a.png")
    expected = inferencer.regions(picture, np.array(BOXES))
    for image, name in ((tmp_path / "a.png", str(tmp_path / "a.png")), (np.asarray(picture), "0")):
        found = inferencer.regions(image, BOXES)
        assert [row["image"] for row in found] == [name] * 3
        assert [row["caption"] for row in found] == [row["caption"] for row in expected]


def test_invalid_regions_are_named_or_skipped(inferencer, picture):
    wide = Image.new("RGB", (200, 100))
    boxes = [(5, 5, 90, 90), (60, 5, 40, 90), (0, 0, 20, 200)]
    with pytest.raises(UserError, match="x0 < x1 and y0 < y1, got 60 5 40 90"):
        inferencer.regions(wide, boxes)
    found = inferencer.regions(wide, boxes, [(300, 1)], skip_invalid=True)
    assert ["caption" in row for row in found] == [True, False, False, False]
    assert found[2]["box"] == [0, 0, 20, 200]
    assert "inside of the image of 200 x 100 pixels, got 0 0 20 200" in found[2]["error"]
    assert "a point must be inside of the image" in found[3]["error"]
    with pytest.raises(UserError, match="`beam_size` must be at least 1, got `0`"):
        inferencer.regions(picture, BOXES, beam_size=0)


def test_a_second_clip_is_refused_before_it_is_loaded(inferencer, picture, monkeypatch):
    monkeypatch.setattr("pcm_plugin.models.decoding.second_clip.SecondCLIP.load", None)
    settings = {"rerank": "ranks", "rerank_clip": "RN50"}
    message = "`rerank_clip` must be None for captions of regions, .* got `RN50`: leave it out"
    with pytest.raises(UserError, match=message):
        inferencer.regions("gone.png", BOXES, **settings)
    with monkeypatch.context() as patch:
        stored = inferencer.model.decoding.updated(settings)
        patch.setattr(inferencer.model, "decoding", stored)
        with pytest.raises(UserError, match=message):
            inferencer.regions("gone.png", BOXES)
        assert len(inferencer.regions(picture, BOXES, rerank="sum")) == len(BOXES)


def test_the_patch_mode_changes_regions_and_not_whole_images(decap_file, inferencer, picture):
    sclip = CaptionInferencer(
        weights=decap_file, device="cpu", show_progress=False, patch_mode="sclip"
    )
    plain, other = (i.regions(picture, BOXES, POINTS) for i in (inferencer, sclip))
    assert [row["log_prob"] for row in plain] != [row["log_prob"] for row in other]
    [whole], [same] = (i(picture)["predictions"] for i in (inferencer, sclip))
    assert whole["log_prob"] == pytest.approx(same["log_prob"], abs=1e-4)
    gaussian = inferencer.regions(picture, BOXES, gaussian_variance=0.1)
    assert gaussian[0]["log_prob"] != plain[0]["log_prob"]


def test_captioners_that_read_patches_have_no_regions():
    inferencer = CaptionInferencer("pcm-net_toy", device="cpu", show_progress=False)
    message = "got PCMNet with the neck PCMMixup, which .* train DeCap .configs/decap/decap_coco.py"
    with pytest.raises(UserError, match=message):
        inferencer.regions(Image.new("RGB", (112, 112)), BOXES)
    with pytest.raises(UserError, match=message):
        CaptionInferencer("pcm-net_toy", device="cpu", patch_mode="sclip")
