"""One image for captions of equal text: --unique."""

import json
import re

import pytest
import yaml

from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.image_shards import ImageShardReader
from pcm_plugin.synthesis.generate.text2image import image_seed
from tests.builders import build_clip, build_pipeline
from tests.test_tools.commands import run

# Ids are the numbers of the lines. Two distinct texts per shard.
CAPTIONS = ["a red dog", "a cat", "a red dog", "the car", "a tree", "a cat", "a red dog", "A cat"]
PAIRS = {"1": ["a red dog"] * 3, "2": ["a cat"] * 2, "4": ["the car"], "5": ["a tree"]}
PAIRS |= {"8": ["A cat"]}
REPEATS = {"shard-00000": {"00000000": ["3", "7"], "00000001": ["6"]}}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return build_pipeline(folder / "pipeline"), build_clip(folder / "clip")


def write(path, captions):
    path.write_text("\n".join(captions))
    return path


def contents(folder):
    return {
        p.relative_to(folder): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name[0] != "."
    }


def generate(tmp_path, models, out, *args, captions=CAPTIONS, processes=1):
    file = write(tmp_path / "captions.txt", captions)
    args = [file, "--pipeline", models[0], "--steps", 2, "--shard-size", 2, *args]
    args += ["--out", out, "--format", "png", "--device", "cpu", "--unique"]
    log = tmp_path / "log"
    return run("generate", *args, log=log, processes=processes, launcher=False)


def extract(tmp_path, models, images, out):
    args = [images, "--model", models[1], "--out", out, "--device", "cpu"]
    return run("extract", *args, log=tmp_path / "log")


def pairs(store):
    return {store.record(i)["image_id"]: store.captions(i) for i in range(len(store))}


def test_equal_captions_share_one_image(tmp_path, models):
    result = generate(tmp_path, models, tmp_path / "images")
    assert result.code == 0, result.output
    assert "5 images in 3 shards, for 8 captions" in result.output
    assert len(ImageShardReader(tmp_path / "images")) == 5
    assert json.loads((tmp_path / "images" / "repeats.json").read_text()) == REPEATS
    result = extract(tmp_path, models, tmp_path / "images", tmp_path / "store")
    assert result.code == 0
    assert re.search(r"extract: 100%.* 8/8 .*pair/s\]", result.output)
    store = FeatureStore(tmp_path / "store")
    assert pairs(store) == PAIRS
    assert store.num_captions == len(CAPTIONS)
    # The image is that of the first caption with this text.
    each = generate(tmp_path, models, tmp_path / "each", captions=["a red dog"])
    assert each.code == 0
    image = [ImageShardReader(tmp_path / name).read("1") for name in ("images", "each")]
    assert image[0].tobytes() == image[1].tobytes()
    assert (
        f'"seed": {image_seed(0, "1")}'.encode()
        in (tmp_path / "each" / "shard-00000.tar").read_bytes()
    )


def test_several_images_per_caption(tmp_path, models):
    out = tmp_path / "images"
    assert generate(tmp_path, models, out, "--images-per-caption", 2).code == 0
    assert extract(tmp_path, models, out, tmp_path / "store").code == 0
    expected = {f"{i}-{n}": captions for i, captions in PAIRS.items() for n in (0, 1)}
    assert pairs(FeatureStore(tmp_path / "store")) == expected


def test_captions_can_be_added(tmp_path, models):
    """New texts get images; for repeated ones, only features are extracted again."""
    more = ["a boat", "the car", "a boat"]
    whole = tmp_path / "whole"
    for folder, steps in ((whole, [[*CAPTIONS, *more]]), (tmp_path / "grown", [CAPTIONS, more])):
        captions = []
        for step in steps:
            captions += step
            before = {
                p: p.stat().st_mtime_ns for p in (folder / "images").glob("shard-0000[01].tar")
            }
            assert generate(tmp_path, models, folder / "images", captions=captions).code == 0
            assert all(p.stat().st_mtime_ns == time for p, time in before.items())
            result = extract(tmp_path, models, folder / "images", folder / "store")
            assert result.code == 0, result.output
    assert contents(tmp_path / "grown") == contents(whole)
    found = pairs(FeatureStore(whole / "store"))
    assert found == PAIRS | {"4": ["the car"] * 2, "9": ["a boat"] * 2}


def test_several_processes_and_a_missing_file(tmp_path, models):
    assert generate(tmp_path, models, tmp_path / "one").code == 0
    assert generate(tmp_path, models, tmp_path / "two", processes=2).code == 0
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    (tmp_path / "one" / "repeats.json").unlink()
    result = extract(tmp_path, models, tmp_path / "one", tmp_path / "store")
    assert result.code == 1
    assert "repeats.json is missing: run the command that made" in result.output
    assert generate(tmp_path, models, tmp_path / "one").code == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_unique_in_a_recipe(tmp_path, models):
    things = ["dog", "cat", "car", "tree", "house"]
    captions = [f"the {a} is next to a {b}" for a in things for b in things] * 2
    recipe = {
        "vocabulary": {"min_count": 1},
        "concepts": {"min_count": 1},
        "generate": {"pipeline": str(models[0]), "steps": 2, "shard_size": 10, "unique": True},
        "extract": {"model": models[1]},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    args = [write(tmp_path / "captions.txt", captions), "--recipe", tmp_path / "tiny.yaml"]
    args += ["--out", tmp_path / "data", "--device", "cpu"]
    result = run("make-dataset", *args, "--dry-run", log=tmp_path / "log")
    assert "50 pairs" in result.output
    assert "generate               25 images, 0 done" in result.output
    result = run("make-dataset", *args, log=tmp_path / "log")
    assert result.code == 0, result.output
    assert (tmp_path / "data" / "config.py").is_file()
    store = FeatureStore(tmp_path / "data" / "train_store")
    assert (len(store), store.num_captions) == (25, 50)
    result = run("make-dataset", *args, "--dry-run", log=tmp_path / "log")
    assert "generate               25 images, 25 done" in result.output
    assert "extract train          25 images, 25 done" in result.output
