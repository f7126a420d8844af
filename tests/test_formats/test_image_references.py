"""References of some images: the file, and the data set that reads it."""

import pytest

from pcm_plugin.datasets import SynthCaptionDataset
from pcm_plugin.formats.image_references import load_references, save_references
from tests.builders import build_caption_store, build_store

TEXTS = {"image2": ["zwei Hunde", "two dogs"], "image0": ["a cat \u732b"]}


def test_round_trip(tmp_path):
    save_references(tmp_path / "references.jsonl", TEXTS)
    found = load_references(tmp_path / "references.jsonl")
    assert (found, [*found]) == (TEXTS, [*TEXTS])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no image: write lines"),
        ("[1]", r"line 1: must be .*got '\[1\]'"),
        (
            '{"image_id": "1", "captions": ["a"]}\n{"image_id": 2, "captions": ["a"]}',
            "line 2: must",
        ),
        ('{"image_id": "1", "captions": []}', "line 1: must be"),
        ('{"image_id": "1", "captions": "a"}', "line 1: must be"),
        ('{"image_id": "1"', "line 1: must be"),
        ('{"image_id": "1", "captions": ["a"]}\n' * 2, "list each image once"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "references.jsonl").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_references(tmp_path / "references.jsonl")
    with pytest.raises(FileNotFoundError, match="no references at"):
        load_references(tmp_path / "none.jsonl")


def test_items_are_these_images_with_these_references(tmp_path):
    expected = build_store(tmp_path / "store", [["a"], ["b"], ["c", "d"], ["e"]])
    save_references(tmp_path / "references.jsonl", TEXTS)
    settings = dict(test_mode=True, references=tmp_path / "references.jsonl")
    dataset = SynthCaptionDataset(tmp_path / "store", **settings)
    samples = [item["data_samples"] for item in dataset]
    assert [(s.image_id, s.gt_caption) for s in samples] == [
        ("image0", TEXTS["image0"]),
        ("image2", TEXTS["image2"]),
    ]
    assert (dataset[1]["global_feats"] == expected["global_feats"][2]).all()
    assert (dataset[1]["patch_feats"].float() == expected["patch_feats"][2]).all()
    one = SynthCaptionDataset(tmp_path / "store", **settings, max_pairs=1)
    assert [one.sample(i).image_id for i in range(len(one))] in (["image0"], ["image2"])


def test_wrong_arguments(tmp_path):
    build_store(tmp_path / "store", [["a"], ["b"]])
    build_caption_store(tmp_path / "captions", ["a", "b"])
    file = tmp_path / "references.jsonl"
    save_references(file, {"image1": ["a"], "image7": ["b"]})
    with pytest.raises(ValueError, match=r"images that are not in .*store \('image7'\)"):
        SynthCaptionDataset(tmp_path / "store", test_mode=True, references=file)
    with pytest.raises(ValueError, match="`references` requires test_mode=True"):
        SynthCaptionDataset(tmp_path / "store", references=file)
    with pytest.raises(ValueError, match="captions alone"):
        SynthCaptionDataset(tmp_path / "captions", test_mode=True, features="text", references=file)
