import json

import pytest

from pcm_plugin.evaluation.annotations import coco_results, read_predictions


def test_numeric_ids_are_written_as_numbers():
    rows = coco_results([("42", "x"), (7, "y"), ("007", "z"), (("a", 1), "w")])
    assert [row["image_id"] for row in rows] == [42, 7, "007", "('a', 1)"]


def test_one_image_has_one_caption(tmp_path):
    path = tmp_path / "captions.json"
    rows = [{"image_id": 42, "caption": "a"}, {"image_id": "42", "caption": "b"}]
    path.write_text(json.dumps(rows))
    with pytest.raises(ValueError, match="must have one caption, but '42' has several"):
        read_predictions(path)
    path.write_text(json.dumps(rows[:1]))
    assert read_predictions(path) == [("42", "a", None)]


def test_common_variants_of_results_files_are_read(tmp_path):
    path = tmp_path / "captions.json"
    rows = [
        {"image_id": 7.0, "caption": "a"},
        {"image_id": "007", "caption": "b", "file_name": "x/007.jpg"},
        {"image": "photos/8.png", "caption": "c"},
        {"image_id": 9, "image": "photos/9.png", "caption": "", "log_prob": -1.5},
    ]
    path.write_text(json.dumps(rows), encoding="utf-8-sig")
    assert read_predictions(path) == [
        ("7", "a", None),
        ("007", "b", "x/007.jpg"),
        ("photos/8.png", "c", "photos/8.png"),
        ("9", "", "photos/9.png"),
    ]


@pytest.mark.parametrize("image_id", ["null", "true", "NaN", '""', "[7]", "{}"])
def test_an_invalid_id_is_rejected(tmp_path, image_id):
    path = tmp_path / "captions.json"
    path.write_text(
        f'[{{"image_id": 1, "caption": "a"}}, {{"image_id": {image_id}, "caption": "b"}}]'
    )
    with pytest.raises(ValueError, match="entry 1"):
        read_predictions(path)
