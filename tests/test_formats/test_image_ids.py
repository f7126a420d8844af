import math

import pytest
import torch

from pcm_plugin.formats.image_ids import (
    coco_number,
    ids_of_files,
    normalize_id,
    refuse_repeated,
    results_ids,
    strip_image_suffix,
)


def test_equal_ids_of_different_types_give_the_same_text():
    assert {normalize_id(x) for x in (7, 7.0, "7", torch.tensor(7), torch.tensor(7.0))} == {"7"}
    assert normalize_id("007") == "007"
    assert normalize_id("1.2") == "1.2"
    assert normalize_id(("a", 1)) == "('a', 1)"
    for value in (None, math.nan, math.inf, True, ""):
        with pytest.raises(ValueError, match="must be a number or a text, got"):
            normalize_id(value)


def test_only_suffixes_of_image_formats_are_stripped():
    assert strip_image_suffix("a/b.JPG") == "a/b"
    assert strip_image_suffix("b.tar.webp") == "b.tar"
    for name in ("1.2", "v1.0", "Mr. Smith", ".png", "a.b"):
        assert strip_image_suffix(name) == name


def test_numbers_of_coco_file_names():
    for name in ("val2014/COCO_val2014_000000000042.jpg", "000000000042.png", "000000000042"):
        assert coco_number(name) == 42
    for name in ("42.jpg", "IMG_000000000042.jpg", "town_42", "COCO_val2014_42.jpg", "a"):
        assert coco_number(name) is None


def test_files_with_the_same_stem_keep_their_suffix():
    assert ids_of_files(["a.png", "b.png", "b.jpg"]) == ["a", "b.png", "b.jpg"]
    # The id of a third file may be the name of one of two that clash.
    assert ids_of_files(["x.png", "x.jpg", "x.png.jpg"]) == ["x.png", "x.jpg", "x.png.jpg"]


def test_results_ids_are_numbers_if_names_are():
    names = ["COCO_val2014_000000000042.jpg", "9.png", "007.jpg", "sub/dog.jpg", "1" * 17 + ".jpg"]
    assert results_ids(names, [f"p/{n}" for n in names]) == [42, 9, 7, "sub/dog", "1" * 17]
    # Images that would share an id get more of their names.
    names = ["7.png", "007.png", "x.png", "x.jpg", "y.png", "y.png"]
    paths = [f"{i}/{n}" for i, n in enumerate(names)]
    assert results_ids(names, paths) == ["7", "007", "x.png", "x.jpg", "4/y.png", "5/y.png"]


def test_repeated_ids_are_named_with_the_fix():
    refuse_repeated(lambda: ["a", "b"], "ids of F", "rename them")
    refuse_repeated(lambda: [], "ids of F", "rename them")
    ids = ["a", "b", "c", "b", "a", "b"]
    message = r"ids of F must be unique, but 'a', 'b' are repeated; rename them"
    with pytest.raises(ValueError, match=message):
        refuse_repeated(lambda: ids, "ids of F", "rename them")
    with pytest.raises(ValueError, match="'4' and 15 more are repeated"):
        refuse_repeated(lambda: [str(i) for i in range(20)] * 2, "ids", "rename them")
