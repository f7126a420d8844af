"""Pixels with captions, from image shards and from image folders, in the order of the store."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pcm_plugin.datasets import SynthImageDataset
from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.coco import write_coco_captions
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.synthesis.extract.extract_features import extract_features
from pcm_plugin.synthesis.extract.open_source import open_source
from pcm_plugin.synthesis.extract.settings import ExtractSettings
from pcm_plugin.synthesis.extract.store_images import load_images
from pcm_plugin.synthesis.generate.generate_images import GenerateSettings, generate_images
from tests.builders import build_clip, build_pipeline

CAPTIONS = ["a red dog runs", "a blue car", "the cat on a house", "a green tree", "a house"]
PACK = dict(
    type="mmpretrain.PackInputs",
    algorithm_keys=["gt_caption", "clip_score"],
    meta_keys=["image_id", "img_path"],
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of generated images, their store, and the images as files with captions."""
    root = tmp_path_factory.mktemp("made")
    clip = build_clip(root / "clip")
    (root / "captions.txt").write_text("\n".join(CAPTIONS))
    settings = GenerateSettings(
        str(build_pipeline(root / "pipeline")), steps=1, format="png", shard_size=2
    )
    generate_images(
        CaptionFile.of(root / "captions.txt"), settings, root / "synthetic", device="cpu"
    )
    extract_features(
        open_source(root / "synthetic", None, 2),
        ExtractSettings(clip, dtype="float32"),
        root / "store",
        2,
        "cpu",
    )
    (root / "real").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "real" / f"{i}.png")
    real = [(10 + i, f"{i}.png", ["a dog", "the dog"]) for i in range(3)]
    write_coco_captions(root / "real.json", real)
    extract_features(
        open_source(root / "real", root / "real.json", 2),
        ExtractSettings(clip, dtype="float32"),
        root / "real_store",
        2,
        "cpu",
    )
    return root


def archived(folder: Path) -> dict[str, np.ndarray]:
    """Read the pixels of each caption with tarfile only."""
    found = {}
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as tar:
            files = {m.name: tar.extractfile(m).read() for m in tar}
        for name, data in files.items():
            if name.endswith(".json"):
                picture = Image.open(io.BytesIO(files[name.replace(".json", ".png")]))
                found[json.loads(data)["caption"]] = np.asarray(picture.convert("RGB"))
    return found


def test_generated_images_come_with_their_captions(made):
    data = SynthImageDataset(made / "store", made / "synthetic", [PACK])
    truth = archived(made / "synthetic")
    assert len(data) == len(CAPTIONS) == len(truth)
    for item in (data[i] for i in range(len(data))):
        sample = item["data_samples"]
        expected = torch.tensor(truth[sample.gt_caption][:, :, ::-1].copy()).permute(2, 0, 1)
        assert torch.equal(item["inputs"], expected)
        assert -2.5 <= sample.clip_score <= 2.5
        assert isinstance(sample.image_id, str)


def test_captions_whose_ids_repeat_keep_their_images(made, tmp_path):
    """The ids of a table are ids of images with several captions."""
    rows = [f"{1 + i // 2},{text}" for i, text in enumerate(CAPTIONS)]
    (tmp_path / "captions.csv").write_text("\n".join(["id,caption", *rows]))
    settings = GenerateSettings(str(made / "pipeline"), steps=1, format="png", shard_size=2)
    captions = CaptionFile.of(tmp_path / "captions.csv")
    generate_images(captions, settings, tmp_path / "synthetic", device="cpu")
    source = open_source(tmp_path / "synthetic", None, 2)
    extract_features(
        source, ExtractSettings(f"local-dir:{made / 'clip'}"), tmp_path / "store", 2, "cpu"
    )
    data = SynthImageDataset(tmp_path / "store", tmp_path / "synthetic", [])
    truth = archived(tmp_path / "synthetic")
    assert [data[i]["gt_caption"] for i in range(len(data))] == CAPTIONS
    for i, text in enumerate(CAPTIONS):
        assert np.array_equal(data[i]["img"][:, :, ::-1], truth[text])
    pictures = load_images(data.pairs_dataset.store, range(len(data)), tmp_path / "synthetic")
    for picture, text in zip(pictures, CAPTIONS, strict=True):
        assert np.array_equal(np.asarray(picture), truth[text])


def test_real_images_come_with_their_references(made):
    resize = dict(type="mmpretrain.Resize", scale=(8, 8))
    data = SynthImageDataset(made / "real_store", made / "real", [resize, PACK], test_mode=True)
    assert len(data) == 3
    item = data[1]
    assert item["inputs"].shape == (3, 8, 8)
    assert item["data_samples"].gt_caption == ["a dog", "the dog"]
    assert item["data_samples"].img_path.endswith("1.png")


def test_subsets_equal_those_of_the_features(made):
    data = SynthImageDataset(made / "store", made / "synthetic", [PACK], max_pairs=2, seed=3)
    features = data.pairs_dataset
    ids = [data[i]["data_samples"].image_id for i in range(2)]
    assert ids == [features[i]["data_samples"].image_id for i in range(2)]


def test_other_images_with_the_same_ids_are_refused(made, tmp_path):
    """Ids of plain text are line numbers, which are the same for all files."""
    (tmp_path / "others.txt").write_text("\n".join(reversed(CAPTIONS)))
    settings = GenerateSettings(str(made / "pipeline"), steps=1, format="png", shard_size=2)
    generate_images(
        CaptionFile.of(tmp_path / "others.txt"), settings, tmp_path / "others", device="cpu"
    )
    with pytest.raises(ValueError, match="was not extracted from the images in"):
        SynthImageDataset(made / "store", tmp_path / "others", [PACK])
    with pytest.raises(ValueError, match="does not contain image 1 of"):
        load_images(FeatureStore(made / "store"), [0], tmp_path / "others")


def test_wrong_folders_are_refused(made, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder of images"):
        SynthImageDataset(made / "store", tmp_path / "no", [PACK])
    with pytest.raises(ValueError, match="has no file name for image"):
        SynthImageDataset(made / "store", made / "real", [PACK])
    match = "must hold 'pcm-images', got 'pcm-features': pass a folder of `pcm generate`"
    with pytest.raises(ValueError, match=match):
        SynthImageDataset(made / "store", made / "store", [PACK])
    with pytest.raises(ValueError, match=r"real_store was not extracted from the images in"):
        SynthImageDataset(made / "real_store", made / "synthetic", [PACK], test_mode=True)
    with pytest.raises(FileNotFoundError, match=r"no image at .*0\.png"):
        SynthImageDataset(made / "real_store", tmp_path, [PACK], test_mode=True)
    (tmp_path / "cut").mkdir()
    for file in (made / "synthetic").iterdir():
        data = file.read_bytes()
        (tmp_path / "cut" / file.name).write_bytes(data[:700] if file.suffix == ".tar" else data)
    with pytest.raises(ValueError, match=r"missing or cut: shard-00000\.tar"):
        SynthImageDataset(made / "store", tmp_path / "cut", [PACK])
