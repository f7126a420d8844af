import json

import pytest
import torch

from pcm_plugin.evaluation.annotations import coco_results, find_image, read_predictions


def test_ids_meet_as_numbers_texts_and_files():
    known = {"42": [], "a": [], "b.png": []}
    for image_id, key in (
        (42, "42"),
        ("42", "42"),
        (torch.tensor(42), "42"),
        ("42.jpg", "42"),
        ("val/COCO_val2014_000000000042.jpg", "42"),
        ("folder/a.jpg", "a"),
        ("C:\\folder\\a.jpg", "a"),
        ("folder/b.png", "b.png"),
    ):
        assert find_image(image_id, known) == key
    # A number at the end of any other name is not COCO's.
    for image_id in ("IMG_0042", "photo_42.jpg", "town_test_00042", "c", ""):
        assert find_image(image_id, known) is None


def test_ids_are_written_as_coco_has_them():
    rows = coco_results([("42", "x"), (7, "y"), ("007", "z"), (("a", 1), "w")])
    assert [row["image_id"] for row in rows] == [42, 7, "007", "('a', 1)"]


def test_one_image_has_one_caption(tmp_path):
    path = tmp_path / "captions.json"
    rows = [{"image_id": 42, "caption": "a"}, {"image_id": "42", "caption": "b"}]
    path.write_text(json.dumps(rows))
    with pytest.raises(ValueError, match="has two captions"):
        read_predictions(path)
    path.write_text(json.dumps(rows[:1]))
    assert read_predictions(path) == {42: "a"}
