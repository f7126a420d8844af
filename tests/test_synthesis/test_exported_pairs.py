"""Pairs in the formats of other tools, read with these tools."""

import io

import numpy as np
import pytest
from PIL import Image

from pcm_plugin.errors import UserError
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.pair_selection import PairSelection, load_pairs
from pcm_plugin.synthesis.extract.extract_features import extract_features
from pcm_plugin.synthesis.extract.open_source import open_source
from pcm_plugin.synthesis.extract.settings import ExtractSettings
from pcm_plugin.synthesis.generate.generate_images import generate_images
from pcm_plugin.synthesis.generate.settings import GenerateSettings
from pcm_plugin.synthesis.pipeline import exported_pairs
from pcm_plugin.synthesis.pipeline.exported_pairs import PairFormat, export_pairs
from tests.builders import build_caption_store, build_clip, build_pipeline, build_store
from tests.test_tools.commands import run

CAPTIONS = ["a red cat", "a blue car", 'a "green" dog, asleep', "ein grüner Hund"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return the folders of generated images and their features."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "captions.txt").write_text("\n".join(CAPTIONS) + "\n")
    pipeline = build_pipeline(folder / "pipeline")
    settings = GenerateSettings(str(pipeline), steps=1, shard_size=3, format="png")
    generate_images(folder / "captions.txt", settings, folder / "images")
    clip = ExtractSettings(str(build_clip(folder / "clip")))
    extract_features(open_source(folder / "images", None, 100), clip, folder / "store")
    return folder / "images", folder / "store"


@pytest.fixture(scope="module")
def refined(made, tmp_path_factory):
    """Return a file of pairs: image 1 has two captions, images 0 and 2 have none."""
    store = FeatureStore(made[1])
    scores = np.array([0.5, 0.75, 0.25], dtype=np.float32)
    pairs = PairSelection(np.array([1, 3, 1]), np.array([0, 1, 3]), scores, 2 * scores)
    path = tmp_path_factory.mktemp("pairs") / "pairs.safetensors"
    pairs.to_file(path, store.identity)
    return path


@pytest.fixture(params=["all", "refined"])
def pairs(request, made, refined):
    """Return the file of the pairs, or None, and the pairs as (image id, caption, pixels)."""
    from pcm_plugin.synthesis.extract.store_images import load_images

    path = refined if request.param == "refined" else None
    store = FeatureStore(made[1])
    selection = load_pairs(store, path)
    pixels = load_images(store, selection.image.tolist(), made[0])
    ids = [store.record(int(image))["image_id"] for image in selection.image]
    texts = [store.caption(int(caption)) for caption in selection.caption]
    assert texts == ([CAPTIONS[i] for i in (0, 1, 3)] if path else CAPTIONS)
    return path, list(zip(ids, texts, map(np.asarray, pixels), strict=True))


def same_pairs(found, expected):
    found = [(text, np.asarray(image.convert("RGB"))) for text, image in found]
    assert [text for text, _ in found] == [text for _, text, _ in expected]
    return all(np.array_equal(a, b) for (_, a), (_, _, b) in zip(found, expected, strict=True))


def test_webdataset(made, pairs, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    path, expected = pairs
    count = export_pairs(
        made[1], made[0], tmp_path / "out", PairFormat("webdataset", shard_size=2), path
    )
    assert count == len(expected)
    archives = sorted(map(str, (tmp_path / "out").iterdir()))
    assert len(archives) == 2
    loaded = webdataset.WebDataset(archives, shardshuffle=False).decode("pil")
    samples = [(s["txt"], s["json"], s["png"]) for s in loaded]
    assert same_pairs([(text, image) for text, _, image in samples], expected)
    assert [s["image_id"] for _, s, _ in samples] == [image_id for image_id, _, _ in expected]
    assert [s["caption"] for _, s, _ in samples] == [text for text, _, _ in samples]


def test_imagefolder(made, pairs, tmp_path):
    datasets = pytest.importorskip("datasets")
    path, expected = pairs
    export_pairs(made[1], made[0], tmp_path / "out", PairFormat("imagefolder"), path)
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "c")
    )
    assert same_pairs(zip(loaded["text"], loaded["image"], strict=True), expected)
    assert loaded["image_id"] == [image_id for image_id, _, _ in expected]


def test_llava(made, pairs, tmp_path):
    pandas = pytest.importorskip("pandas")
    path, expected = pairs
    settings = PairFormat("llava", prompt="What is it?")
    export_pairs(made[1], made[0], tmp_path / "out", settings, path)
    frame = pandas.read_json(tmp_path / "out" / "dataset.json", dtype={"id": str})
    assert frame["id"].is_unique
    found = []
    for name, (question, answer) in zip(frame["image"], frame["conversations"], strict=True):
        assert question == {"from": "human", "value": "<image>\nWhat is it?"}
        assert answer["from"] == "gpt"
        found.append((answer["value"], Image.open(tmp_path / "out" / name)))
    assert same_pairs(found, expected)
    assert len(list((tmp_path / "out" / "images").iterdir())) == len({i for i, _, _ in expected})


def test_kohya(made, pairs, tmp_path):
    path, expected = pairs
    settings = PairFormat("kohya", concept="my things", repeats=3)
    export_pairs(made[1], made[0], tmp_path / "out", settings, path)
    [folder] = (tmp_path / "out").iterdir()
    assert folder.name == "3_my things"
    found = []
    for image in folder.glob("*.png"):
        for text in image.with_suffix(".txt").read_text().splitlines():
            found.append((text, Image.open(image)))
    order = [text for _, text, _ in expected]
    assert same_pairs(sorted(found, key=lambda pair: order.index(pair[0])), expected)


@pytest.mark.parametrize("name", exported_pairs.FORMATS)
def test_an_interrupted_export_continues_with_the_same_bytes(made, tmp_path, monkeypatch, name):
    def contents(folder):
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }

    settings = PairFormat(name, shard_size=1)
    export_pairs(made[1], made[0], tmp_path / "whole", settings)
    read = exported_pairs._Images.read
    numbers = []

    def interrupted(images, number):
        if len(numbers) == 2:
            raise KeyboardInterrupt
        numbers.append(number)
        return read(images, number)

    with monkeypatch.context() as patch:
        patch.setattr(exported_pairs._Images, "read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            export_pairs(made[1], made[0], tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="contains another export"):
        export_pairs(made[1], made[0], tmp_path / "out", PairFormat(name, shard_size=2))
    again = []
    monkeypatch.setattr(
        exported_pairs._Images, "read", lambda images, n: again.append(n) or read(images, n)
    )
    export_pairs(made[1], made[0], tmp_path / "out", settings)
    assert len(again) == len(CAPTIONS) - 2
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not list(tmp_path.glob("*.partial"))


def test_image_files_are_copied_unchanged(tmp_path):
    build_store(tmp_path / "store", [["a dog", "the dog"], ["a cat"]])
    (tmp_path / "images").mkdir()
    encoded = []
    for i in range(2):
        data = io.BytesIO()
        Image.new("RGB", (4, 4), (i, 0, 0)).save(data, "PNG")
        encoded.append(data.getvalue())
        (tmp_path / "images" / f"{i}.png").write_bytes(encoded[-1])
    words = ["--images", tmp_path / "images", "--format", "kohya", "--out", tmp_path / "out"]
    done = run("store", "export-pairs", tmp_path / "store", *words, log=tmp_path / "log")
    assert done.code == 0, done.output
    assert f"{tmp_path / 'out'}: 3 pairs" in done.output
    folder = tmp_path / "out" / "1_images"
    assert [p.read_bytes() for p in sorted(folder.glob("*.png"))] == encoded
    texts = [path.read_text() for path in sorted(folder.glob("*.txt"))]
    assert texts == ["a dog\nthe dog\n", "a cat\n"]
    words[-1] = tmp_path / "other"
    words += ["--prompt", "?"]
    done = run("store", "export-pairs", tmp_path / "store", *words, log=tmp_path / "log")
    assert "--prompt has no effect with --format kohya" in done.output
    assert not list(tmp_path.glob("other*"))


def test_wrong_inputs_are_reported_before_anything_is_written(made, tmp_path):
    build_store(tmp_path / "store", [["a dog"]])
    (tmp_path / "images").mkdir()
    cases = [
        (tmp_path / "store", tmp_path / "none", "no folder of images"),
        (tmp_path / "store", tmp_path / "images", "no image 0.png in"),
        (made[1], tmp_path / "images", "has no file names"),
        (tmp_path / "store", made[0], "was not extracted from the images"),
    ]
    for store, images, message in cases:
        with pytest.raises((UserError, FileNotFoundError), match=message):
            export_pairs(store, images, tmp_path / "out", PairFormat("llava"))
    alone = tmp_path / "alone"
    build_caption_store(alone, ["a dog"])
    with pytest.raises(UserError, match="pcm store export-pairs needs images, but"):
        export_pairs(alone, tmp_path / "images", tmp_path / "out", PairFormat("llava"))
    with pytest.raises(UserError, match="images exists: pass a new folder"):
        export_pairs(made[1], made[0], tmp_path / "images", PairFormat("llava"))
    assert not list(tmp_path.glob("out*"))
    for settings, message in (
        ({"name": "coco"}, "format must be one of webdataset, imagefolder, llava, kohya"),
        ({"name": "kohya", "concept": "a/b"}, "concept must be part of a folder name, got 'a/b'"),
        ({"name": "kohya", "repeats": 0}, "repeats must be at least 1, got 0"),
    ):
        with pytest.raises(UserError, match=message):
            PairFormat(**settings)
