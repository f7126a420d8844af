import pytest
from PIL import Image

from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.synthesis.extract.store_images import load_images
from pcm_plugin.synthesis.pipeline.stores import merge
from tests.builders import build_clip, build_pipeline
from tests.test_tools.commands import run

CAPTIONS = [f"a {color} {thing}" for color in ("red", "blue", "green") for thing in ("cat", "car")]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Generated images in shards of two, and their features."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "captions.txt").write_text("\n".join(CAPTIONS) + "\n")
    pipeline, clip = build_pipeline(folder / "pipeline"), build_clip(folder / "clip")
    images, store = folder / "images", folder / "store"
    for command in (
        ("generate", folder / "captions.txt", "--pipeline", pipeline, "--out", images,
         "--steps", 1, "--shard-size", 2, "--format", "png"),
        ("extract", images, "--model", clip, "--out", store),
    ):  # fmt: skip
        result = run(*command, log=folder / "log", launcher=False)
        assert result.code == 0, result.output
    return folder, images, store


def test_generated_pictures_are_found_by_their_features(made):
    folder, images, path = made
    store = FeatureStore(path)
    found = load_images(store, [5, 0, 3, 5], images)
    assert [picture.size for picture in found] == [(16, 16)] * 4
    assert found[0].tobytes() == found[3].tobytes() != found[1].tobytes()
    # The features of each picture are those that the store has of it.
    from pcm_plugin.registry import MODELS

    clip = MODELS.build(
        {"type": "pcm_plugin.OpenCLIPBackbone", "model_name": f"local-dir:{folder / 'clip'}"}
    ).eval()
    for number, picture in zip((5, 0, 3), found, strict=False):
        _, feats = clip(clip.preprocess(picture).unsqueeze(0))
        assert float(feats[0] @ store.global_feats(number)) > 0.999


def test_other_folders_are_refused(made, tmp_path):
    store = FeatureStore(made[2])
    with pytest.raises(FileNotFoundError, match="no folder of images at"):
        load_images(store, [0], tmp_path / "nowhere")
    with pytest.raises(ValueError, match="has no file name for image"):
        load_images(store, [0], tmp_path)


def test_a_file_of_another_merged_store_is_not_shown(made, tmp_path):
    clip = f"local-dir:{made[0] / 'clip'}"
    for name, color in (("a", "red"), ("b", "blue")):
        (tmp_path / name).mkdir()
        Image.new("RGB", (16, 16), color).save(tmp_path / name / "7.png")
        words = ["extract", tmp_path / name, "--captions", "none", "--model", clip]
        result = run(
            *words, "--out", tmp_path / f"{name}_store", log=tmp_path / "log", launcher=False
        )
        assert result.code == 0, result.output
    merge([tmp_path / "a_store", tmp_path / "b_store"], tmp_path / "merged", prefix_ids=True)
    store = FeatureStore(tmp_path / "merged")
    assert [store.record(i)["image_id"] for i in range(2)] == ["0-7", "1-7"]
    with pytest.raises(OSError, match=r"1/7\.png"):
        load_images(store, [1], tmp_path / "a")
    with pytest.raises(ValueError, match=r"1/7\.png of .* is not of the merged store 0"):
        load_images(store, [0, 1], tmp_path / "a", part=0)
    (blue,) = load_images(store, [1], tmp_path / "b", part=1)
    assert blue.getpixel((0, 0)) == (0, 0, 255)
    # A later merge keeps the prefixes, and adds one or none.
    (tmp_path / "c").mkdir()
    Image.new("RGB", (16, 16), "lime").save(tmp_path / "c" / "7.png")
    words = ["extract", tmp_path / "c", "--captions", "none", "--model", clip]
    result = run(*words, "--out", tmp_path / "c_store", log=tmp_path / "log", launcher=False)
    assert result.code == 0, result.output
    for prefix, name in ((False, "1/7.png"), (True, "0/1/7.png")):
        out = tmp_path / f"again{prefix}"
        merge([tmp_path / "merged", tmp_path / "c_store"], out, prefix_ids=prefix)
        again = FeatureStore(out)
        assert again.record(1)["file_name"] == name
        (blue,) = load_images(again, [1], tmp_path / "b", part=1)
        assert blue.getpixel((0, 0)) == (0, 0, 255)
    with pytest.raises(ValueError, match=r"7\.png of .* is not of the merged store 1"):
        load_images(FeatureStore(tmp_path / "againFalse"), [2], tmp_path / "b", part=1)
    # Or the folders of the stores side by side.
    for number, name in enumerate("ab"):
        (tmp_path / name).rename(tmp_path / str(number))
    red, blue = load_images(store, [0, 1], tmp_path)
    assert (red.getpixel((0, 0)), blue.getpixel((0, 0))) == ((255, 0, 0), (0, 0, 255))


def test_images_of_a_store_that_is_merged_again_are_found(made, tmp_path):
    _, images, path = made
    merge([path, path], tmp_path / "twice", prefix_ids=True)
    (wanted,) = load_images(FeatureStore(path), [4], images)
    for prefix in (False, True):
        merge([tmp_path / "twice", path], tmp_path / f"again{prefix}", prefix_ids=prefix)
        store = FeatureStore(tmp_path / f"again{prefix}")
        ids = [store.record(i)["image_id"] for i in (4, 10, 16)]
        assert len({*ids}) == 3
        for picture in load_images(store, [4, 10, 16], images):
            assert picture.tobytes() == wanted.tobytes()


def test_a_sheet_of_pairs(made, tmp_path):
    _, images, path = made
    for order in ("lowest", "random"):
        out = tmp_path / "new" / f"{order}.png"
        command = ["sheet", path, "--images", images, "--count", 4, "--order", order, "--out", out]
        result = run("store", *command, log=tmp_path / "log", launcher=False)
        assert result.code == 0, result.output
        assert "4 of 6 pairs" in result.output
        with Image.open(out) as drawn:
            assert drawn.width > 1000
    command = ["sheet", path, "--images", tmp_path / "nowhere", "--out", tmp_path / "s.png"]
    result = run("store", *command, log=tmp_path / "log", launcher=False)
    assert (result.code, "no folder of images" in result.output) == (1, True)
