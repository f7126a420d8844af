import numpy as np
import open_clip
import pytest
import torch
from mmengine.dataset import default_collate
from PIL import Image

from pcm_plugin.datasets.coco import write_coco_captions
from pcm_plugin.registry import DATASETS
from tests.builders import build_clip


@pytest.fixture
def files(tmp_path):
    for i, (size, mode) in enumerate([((20, 31, 3), "RGB"), ((40, 18), "L")]):
        pixels = np.random.default_rng(i).integers(0, 256, size, dtype=np.uint8)
        Image.fromarray(pixels, mode).save(tmp_path / f"{i}.png")
    entries = [(3, "0.png", ["a dog", "the dog"]), (4, "1.png", ["a cat"])]
    write_coco_captions(tmp_path / "captions.json", entries)
    return {"ann_file": tmp_path / "captions.json", "image_root": tmp_path}


def build(files, **kwargs):
    return DATASETS.build({"type": "pcm_plugin.CaptionImageDataset", **files, **kwargs})


def test_images_are_as_open_clip_prepares_them(files, tmp_path):
    preprocess = {"size": 16, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    dataset = build(files, preprocess=preprocess)
    _, _, reference = open_clip.create_model_and_transforms(build_clip(tmp_path / "clip"))
    for i in range(2):
        item = dataset[i]
        expected = reference(Image.open(tmp_path / f"{i}.png"))
        torch.testing.assert_close(item["images"], expected)
    sample = dataset[0]["data_samples"]
    assert (sample.image_id, sample.gt_caption) == ("3", ["a dog", "the dog"])
    assert sample.img_path == str(tmp_path / "0.png")
    assert default_collate([dataset[0], dataset[1]])["images"].shape == (2, 3, 16, 16)


def test_the_default_is_clips(files, tmp_path):
    reference = open_clip.image_transform(224, is_train=False)
    expected = reference(Image.open(tmp_path / "1.png"))
    torch.testing.assert_close(build(files)[1]["images"], expected)


@pytest.mark.parametrize("name", ["ann_file", "image_root"])
def test_what_is_missing_is_named(files, tmp_path, name):
    with pytest.raises(FileNotFoundError, match=f"{name}='.*nowhere'"):
        build(files, **{name: tmp_path / "nowhere"})
