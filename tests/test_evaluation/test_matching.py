import pytest

from pcm_plugin.evaluation.matching import ImageName, match_images


def names(*rows):
    return [ImageName(*row) if isinstance(row, tuple) else ImageName(row) for row in rows]


def match(predictions, references):
    return match_images(names(*predictions), names(*references))


@pytest.mark.parametrize("prediction", [
    "42", "val2017/000000000042.jpg", "000000000042", "COCO_val2014_000000000042.jpg",
    "/data/val2014/COCO_val2014_000000000042.jpg", "C:\\photos\\42.png", "42.0", "0042",
])  # fmt: skip
@pytest.mark.parametrize("file", [None, "000000000042.jpg", "COCO_val2014_000000000042.jpg"])
def test_file_names_and_numbers_of_coco_are_matched(prediction, file):
    assert match([prediction], ["7", ("42", file), "420"]) == [1]


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("1.2", "1"),
        ("IMG_0042.jpg", "42"),
        ("photo_42.jpg", "42"),
        ("a", "A"),
        ("", "a"),
        ("9.jpg", ("9", "25.jpg")),
        ("12", "1.2"),
        ("v1.0", "v1"),
    ],
)
def test_different_names_are_not_matched(prediction, reference):
    assert match([prediction], [reference]) == [None]


def test_files_are_matched_by_the_end_of_their_paths():
    references = [("1", "a/x.jpg"), ("2", "b/x.jpg"), ("3", "x.png")]
    assert match(["/photos/b/x.jpg", "photos/a/x.jpg", "c/x.png"], references) == [1, 0, 2]
    # An exact name has priority over one without suffix.
    assert match(["x.png", "x.jpg"], [("x", "x.jpg")]) == [None, 0]
    assert match(["x"], [("7", "images/x.jpg")]) == [0]


def test_files_have_priority_over_ids():
    # After renumbering, ids equal the numbers of other images' files.
    references = [("3", "9.png"), ("9", "25.png")]
    assert match([("9", "photos/9.png"), ("25", "photos/25.png")], references) == [0, 1]
    assert match([("9", "photos/9.png")], references[1:]) == [None]
    assert match([("9", "photos/dog.png")], references) == [1]


def test_unicode_forms_are_matched():
    composed, decomposed = "caf\u00e9.jpg", "cafe\u0301.jpg"
    assert match([decomposed], [composed, "cafe.jpg"]) == [0]
    assert match([decomposed, composed], [composed, decomposed]) == [1, 0]


def test_mixed_spellings_are_matched():
    references = [("9", None), ("25", None), ("30", None), ("139", None)]
    predictions = ["000000000009", "val2017/000000000025.jpg", "COCO_val2014_000000000030.jpg"]
    assert match([*predictions, "139"], references) == [0, 1, 2, 3]


def test_ambiguous_images_are_reported():
    for predictions, references, message in (
        (["x"], [("x.png", "x.png"), ("x.jpg", "x.jpg")], "'x' agree with .* 'x.png', 'x.jpg'"),
        (["a/x.jpg", "b/x.jpg"], [("1", "x.jpg")], "id 'a/x.jpg', 'b/x.jpg' agree with .* id '1'"),
        (["01"], ["1", "001"], "id '01' agree with"),
        (["07", "007"], ["7"], "id '07', '007' agree with"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            match(predictions, references)
    # An exact id decides.
    assert match(["1", "01"], ["1", "001"]) == [0, 1]
    assert match(["7", "007"], ["7"]) == [0, None]
