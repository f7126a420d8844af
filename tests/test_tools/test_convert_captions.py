import json

import pytest

from pcm_plugin.datasets.coco import read_coco_images
from pcm_plugin.synthesis.captions import Caption, CaptionFile
from tests.test_tools.commands import run

KARPATHY = {
    "dataset": "coco",
    "images": [
        {
            "filename": f"{split}.jpg",
            "filepath": "val2014",
            "cocoid": i,
            "split": split,
            "sentences": [{"raw": f"{split} {j}", "sentid": 2 * i + j} for j in range(2)],
        }
        for i, split in enumerate(("train", "val", "test"))
    ],
}


@pytest.fixture
def karpathy(tmp_path):
    path = tmp_path / "dataset_coco.json"
    path.write_text(json.dumps(KARPATHY))
    return path


def convert(tmp_path, *args):
    return run("convert_captions.py", *args, log=tmp_path / "log")


def test_a_split_becomes_a_coco_captions_file(tmp_path, karpathy):
    result = convert(tmp_path, karpathy, "--split", "val", "--out", tmp_path / "new/val.json")
    assert result.code == 0, result.output
    assert "(Karpathy's JSON): 2 captions, 4 of other splits" in result.output
    assert read_coco_images(tmp_path / "new/val.json") == [
        ("1", "val2014/val.jpg", ["val 0", "val 1"])
    ]


def test_captions_become_jsonl_and_are_read_as_they_were(tmp_path, karpathy):
    result = convert(tmp_path, karpathy, "--out", tmp_path / "train.jsonl")
    assert result.code == 0, result.output
    captions = list(CaptionFile(tmp_path / "train.jsonl"))
    assert captions == list(CaptionFile(karpathy))
    assert captions[1] == Caption("1", "0", "train 1", "val2014/train.jpg")


def test_what_cannot_be_written_is_said(tmp_path):
    (tmp_path / "captions.txt").write_text("a dog\n")
    result = convert(tmp_path, tmp_path / "captions.txt", "--out", tmp_path / "out.json")
    assert result.code == 1
    assert "image 1 has no file name" in result.output
    result = convert(tmp_path, tmp_path / "captions.txt", "--out", tmp_path / "out.txt")
    assert "give a name that ends in .json or .jsonl" in result.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["captions.txt", "log"]
