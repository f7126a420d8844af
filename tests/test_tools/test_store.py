import json
import shutil

import numpy as np
import pytest
import torch

from pcm_plugin.formats.clip_head import CLIP_HEAD
from pcm_plugin.formats.coco import read_coco_images
from pcm_plugin.formats.feature_shard import FORMAT
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.pair_selection import PairSelection, load_pairs
from pcm_plugin.formats.shards import Shard, ShardFolder
from tests.builders import build_caption_store, build_store
from tests.test_tools.commands import run

CAPTIONS = [["a dog", "the dog"], ["a cat"], [], ["a tree"], ["a car"]]


def store(tmp_path, *args):
    return run("store", *args, log=tmp_path / "log")


@pytest.fixture
def two(tmp_path):
    build_store(tmp_path / "one", CAPTIONS)
    build_store(tmp_path / "two", [["a house"], ["a red house"]], ids=["house0", "house1"])
    # Stores of one CLIP.
    (tmp_path / "two" / CLIP_HEAD).write_bytes((tmp_path / "one" / CLIP_HEAD).read_bytes())
    return tmp_path / "one", tmp_path / "two"


def test_info_says_what_a_store_holds(tmp_path, two):
    result = store(tmp_path, "info", two[0])
    assert result.code == 0, result.output
    assert "5 images, 5 captions" in result.output
    assert "4 patches of width 6, CLIP width 5" in result.output
    assert 'model: "random"' in result.output


def test_verify_finds_a_changed_byte(tmp_path, two):
    assert store(tmp_path, "verify", two[0]).code == 0
    shard = two[0] / "shard-00001.jsonl"
    shard.write_bytes(shard.read_bytes().replace(b"tree", b"tref"))
    result = store(tmp_path, "verify", two[0])
    assert result.code == 1
    assert f"damaged: {shard}" in result.output


def test_merged_stores_read_as_one(tmp_path, two):
    result = store(tmp_path, "merge", *two, "--out", tmp_path / "both")
    assert result.code == 0, result.output
    one, other, both = map(FeatureStore, (*two, tmp_path / "both"))
    assert both.image_ids == one.image_ids + other.image_ids
    assert len(both) == 7
    for i in range(7):
        part, row = (one, i) if i < 5 else (other, i - 5)
        assert torch.equal(both.patch_feats(i), part.patch_feats(row))
        assert both.captions(i) == part.captions(row)
    assert torch.equal(both.caption_feats(6), other.caption_feats(1))
    assert store(tmp_path, "verify", tmp_path / "both").code == 0
    # A second run writes nothing, and other stores are refused.
    before = (tmp_path / "both" / "manifest.json").read_bytes()
    assert store(tmp_path, "merge", *two, "--out", tmp_path / "both").code == 0
    assert (tmp_path / "both" / "manifest.json").read_bytes() == before
    result = store(tmp_path, "merge", *reversed(two), "--out", tmp_path / "both")
    assert "was made with other settings (source" in result.output


def test_pairs_of_merged_stores(tmp_path, two):
    """Some pairs of a store, one of them with another image, and all of the others."""
    one, other = map(FeatureStore, two)
    every = load_pairs(one)
    some = PairSelection(np.array([3, 4]), np.array([0, 4]), every.score[:2], every.score[2:4])
    some.to_file(tmp_path / "some.safetensors", one.identity)
    args = ["--pairs", tmp_path / "some.safetensors", "--out", tmp_path / "both"]
    for order, images, captions in (
        ((two[0], two[1]), [3, 4, 5, 6], [0, 4, 5, 6]),
        ((two[1], two[0]), [0, 1, 5, 6], [0, 1, 2, 6]),
    ):
        result = store(tmp_path, "merge", *order, *args)
        assert result.code == 0, result.output
        assert "both/pairs.safetensors: 4 pairs" in result.output
        both = FeatureStore(tmp_path / "both")
        pairs = load_pairs(both, tmp_path / "both" / "pairs.safetensors")
        assert (pairs.image.tolist(), pairs.caption.tolist()) == (images, captions)
        parts = [some, load_pairs(other)] if order[0] == two[0] else [load_pairs(other), some]
        for key in ("clip_score", "score"):
            expected = np.concatenate([getattr(part, key) for part in parts])
            np.testing.assert_array_equal(getattr(pairs, key), expected)
        assert store(tmp_path, "verify", tmp_path / "both").code == 0
        shutil.rmtree(tmp_path / "both")
    file = tmp_path / "some.safetensors"
    for stores, files, message in (
        ([two[1]], [file], "must hold pairs of one of"),
        (two, [file, file], "hold pairs of the same store"),
        ([two[0], tmp_path / "none"], [file], "no feature store at"),
    ):
        result = store(tmp_path, "merge", *stores, "--pairs", *files, "--out", tmp_path / "both")
        assert result.code == 1
        assert message in result.output
        assert not (tmp_path / "both").exists()


def test_stores_with_images_of_one_id_are_merged_by_prefix_alone(tmp_path, two):
    build_store(tmp_path / "three", [["a tree"], ["a house"]], ids=["house1", "image1"])
    (tmp_path / "three" / CLIP_HEAD).write_bytes((two[0] / CLIP_HEAD).read_bytes())
    command = ["merge", *two, tmp_path / "three", "--out", tmp_path / "all"]
    result = store(tmp_path, *command)
    assert result.code == 1
    assert "must be unique, but 'image1', 'house1' are repeated; pass --prefix-ids" in result.output
    assert not (tmp_path / "all").exists()
    result = store(tmp_path, *command, "--prefix-ids")
    assert result.code == 0, result.output
    merged = FeatureStore(tmp_path / "all")
    assert merged.image_ids[1::5] == ["0-image1", "1-house1"]
    assert merged.record(8) == {
        "image_id": "2-image1", "file_name": "2/image1.png", "captions": ["a house"]
    }  # fmt: skip
    third = FeatureStore(tmp_path / "three")
    assert torch.equal(merged.patch_feats(8), third.patch_feats(1))
    assert store(tmp_path, "verify", tmp_path / "all").code == 0
    # The stores are as they were.
    assert third.image_ids == ["house1", "image1"]


def test_files_of_one_name_are_merged_by_prefix_alone(tmp_path, two):
    lines = (two[1] / "shard-00000.jsonl").read_text().replace("house0.png", "0.png")
    shard = ShardFolder(two[1], FORMAT)
    (two[1] / "shard-00000.jsonl").write_text(lines)
    record = shard.shards["shard-00000"]
    plan = Shard("shard-00000", record["num_source"], record["digest"])
    shard.commit(plan, [*record["files"]], 2, shard.manifest["info"], captions=2)
    result = store(tmp_path, "merge", *two, "--out", tmp_path / "both")
    assert result.code == 1
    assert "file names of" in result.output
    assert "'0.png' is repeated; pass --prefix-ids" in result.output


def test_ids_that_are_one_file_name_elsewhere_are_not_exported(tmp_path):
    build_store(tmp_path / "store", [["a"], ["b"]], ids=["Dog", "dog"])
    result = store(tmp_path, "export", tmp_path / "store", "--out", tmp_path / "npz")
    assert (result.code, "but 'dog' is repeated" in result.output) == (1, True)


def test_stores_of_different_settings_are_not_merged(tmp_path, two):
    manifest = two[1] / "manifest.json"
    content = json.loads(manifest.read_text())
    content["settings"]["model"] = "another"
    manifest.write_text(json.dumps(content))
    result = store(tmp_path, "merge", *two, "--out", tmp_path / "both")
    assert result.code == 1
    assert "were made with different settings (model: 'random' and 'another')" in result.output
    assert not (tmp_path / "both").exists()
    result = store(tmp_path, "merge", two[0], "--out", two[0])
    assert "is one of the stores to merge" in result.output


def test_export_writes_what_the_released_code_reads(tmp_path, two):
    assert store(tmp_path, "export", two[0], "--out", tmp_path / "npz").code == 0
    reader = FeatureStore(two[0])
    files = sorted((tmp_path / "npz" / "features").iterdir())
    assert [file.stem for file in files] == sorted(reader.image_ids)
    for i, image_id in enumerate(reader.image_ids):
        with np.load(tmp_path / "npz" / "features" / f"{image_id}.npz") as found:
            assert np.array_equal(found["features"], reader.patch_feats(i).numpy())
            assert np.array_equal(found["g_feature"], reader.global_feats(i)[None].numpy())
    images = read_coco_images(tmp_path / "npz" / "captions.json")
    assert [image.captions for image in images] == CAPTIONS
    assert store(tmp_path, "export", two[0], "--out", tmp_path / "npz").code == 0
    result = store(tmp_path, "export", two[1], "--out", tmp_path / "npz")
    assert "contains the export of another store" in result.output


def test_missing_stores_are_said(tmp_path):
    for args in (["info", "none"], ["export", "none", "--out", "x"], ["verify", "none"]):
        result = store(tmp_path, *args)
        assert result.code == 1
        assert "Traceback" not in result.output
        assert "none" in result.output


def test_a_store_of_captions_alone(tmp_path):
    for name in ("one", "two"):
        build_caption_store(tmp_path / name, ["a dog", "a cat", "a car"])
    result = store(tmp_path, "info", tmp_path / "one")
    assert result.code == 0, result.output
    assert "no images, 3 captions" in result.output
    assert store(tmp_path, "verify", tmp_path / "one").code == 0
    parts = [tmp_path / "one", tmp_path / "two"]
    result = store(tmp_path, "merge", *parts, "--prefix-ids", "--out", tmp_path / "merged")
    assert result.code == 0, result.output
    merged = FeatureStore(tmp_path / "merged")
    assert merged.num_captions == 6
    assert not merged.has_images
    build_store(tmp_path / "images", CAPTIONS, num_patches=0)
    parts = [tmp_path / "one", tmp_path / "images"]
    result = store(tmp_path, "merge", *parts, "--out", tmp_path / "mixed")
    assert (result.code, "images: False" in result.output) == (1, True), result.output
    sheet = ["sheet", tmp_path / "one", "--images", tmp_path, "--out", tmp_path / "x.png"]
    for command, message in (
        (sheet, "pcm store sheet needs images"),
        (["export", tmp_path / "one", "--out", tmp_path / "npz"], "has no patch features"),
    ):
        result = store(tmp_path, *command)
        assert (result.code, message in result.output) == (1, True), result.output
    for method in ("sync", "contrast"):
        args = [tmp_path / "one", "--method", method, "--out", tmp_path / "refined"]
        result = run("refine", *args, log=tmp_path / "log")
        assert result.code == 1
        assert "refinement needs images, but" in result.output
    assert not (tmp_path / "refined").exists()
