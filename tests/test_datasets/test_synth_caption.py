import json

import pytest
import torch
from mmengine.dataset import default_collate
from torch.utils.data import DataLoader

from pcm_plugin.registry import DATASETS
from tests.builders import build_caption_store, build_store

CAPTIONS = [["a dog", "the dog"], ["a cat"], ["one", "two", "three"], [], ["last"]]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "store"
    return path, build_store(path, CAPTIONS)


def build(store, **kwargs):
    return DATASETS.build(
        {"type": "pcm_plugin.SynthCaptionDataset", "store": str(store[0]), **kwargs}
    )


def test_training_yields_every_pair_once(store):
    truth = store[1]
    dataset = build(store)
    pairs = [(i, c) for i, captions in enumerate(CAPTIONS) for c in captions]
    assert len(dataset) == len(pairs) == 7
    for j, (i, caption) in enumerate(pairs):
        item = dataset[j]
        sample = item["data_samples"]
        assert (sample.image_id, sample.gt_caption) == (f"image{i}", caption)
        assert sample.clip_score == pytest.approx(float(truth["clip_scores"][j]))
        assert item["patch_feats"].dtype == torch.float16
        assert torch.equal(item["patch_feats"].float(), truth["patch_feats"][i])
        assert torch.equal(item["global_feats"], truth["global_feats"][i])


def test_test_mode_yields_every_image_with_its_references(store):
    dataset = build(store, test_mode=True, data_prefix="/images")
    assert [item["data_samples"].gt_caption for item in dataset] == CAPTIONS
    assert dataset[1]["data_samples"].img_path == "/images/1.png"
    assert "clip_score" not in dataset[0]["data_samples"]


def test_text_only_training_uses_text_features_and_tests_on_images(store):
    truth = store[1]
    dataset = build(store, features="text")
    assert all("patch_feats" not in item for item in dataset)
    assert torch.equal(dataset[4]["global_feats"], truth["caption_feats"][4])
    tested = build(store, features="text", test_mode=True)[2]
    assert "patch_feats" not in tested
    assert torch.equal(tested["global_feats"], truth["global_feats"][2])


def test_pairs_with_low_scores_are_dropped(store):
    scores = store[1]["clip_scores"]
    threshold = float(scores.median())
    dataset = build(store, min_clip_score=threshold)
    kept = sorted(item["data_samples"].clip_score for item in dataset)
    assert kept == pytest.approx(sorted(scores[scores >= threshold].tolist()))
    with pytest.raises(ValueError, match=r"`min_clip_score` must be at most \d\.\d+, .* got 9"):
        build(store, min_clip_score=9)


def test_a_store_without_captions_is_for_tests_only(tmp_path):
    build_store(tmp_path / "store", [[], []])
    assert len(build([tmp_path / "store"], test_mode=True)) == 2
    with pytest.raises(ValueError, match="have no captions"):
        build([tmp_path / "store"])


def test_subsets_of_pairs_are_fixed_and_nested(store):
    def chosen(**kwargs):
        return [item["data_samples"].gt_caption for item in build(store, **kwargs)]

    assert chosen(max_pairs=3) == chosen(max_pairs=3)
    assert set(chosen(max_pairs=3)) < set(chosen(max_pairs=5))
    assert len({tuple(chosen(max_pairs=3, seed=seed)) for seed in range(5)}) > 1
    assert chosen(max_pairs=99) == chosen()
    assert len(chosen(max_pairs=2, test_mode=True)) == 2
    with pytest.raises(ValueError, match="got 'caption'"):
        build(store, features="caption")


def test_a_share_of_the_pairs_equals_their_number(store):
    def chosen(max_pairs):
        return [item["data_samples"].gt_caption for item in build(store, max_pairs=max_pairs)]

    for share, count in ((0.01, 1), (0.4, 3), (0.6, 4), (0.8, 6)):
        assert chosen(share) == chosen(count)
    assert set(chosen(0.4)) < set(chosen(0.8)) < set(chosen(None))


@pytest.mark.parametrize("wrong", [0, -1, 0.0, -0.1, 1.0, 2.5, float("nan"), True, "0.1"])
def test_an_invalid_number_of_pairs_is_refused(store, wrong):
    with pytest.raises(ValueError, match=f"`max_pairs` must be .* got {wrong!r}"):
        build(store, max_pairs=wrong)


def test_workers_yield_the_same_batches(store):
    dataset = build(store)
    dataset[0]

    def captions(num_workers):
        loader = DataLoader(dataset, 3, num_workers=num_workers, collate_fn=default_collate)
        batches = list(loader)
        assert batches[0]["patch_feats"].shape == (3, 4, 6)
        return [
            (sample.gt_caption, float(row.sum()))
            for batch in batches
            for sample, row in zip(batch["data_samples"], batch["patch_feats"], strict=True)
        ]

    assert captions(2) == captions(0)


def test_global_features_have_no_patches(store):
    truth, owners = store[1], [0, 0, 1, 2, 2, 2, 4]
    for j, item in enumerate(build(store, features="global")):
        assert set(item) == {"data_samples", "global_feats"}
        assert torch.equal(item["global_feats"], truth["global_feats"][owners[j]])
    tested = build(store, features="global", test_mode=True)[3]
    assert set(tested) == {"data_samples", "global_feats"}
    assert torch.equal(tested["global_feats"], truth["global_feats"][3])


def test_object_labels_belong_to_their_image(store, tmp_path):
    file = tmp_path / "objects.json"
    objects = {f"image{i}": [f"thing {i}"] * i for i in range(5)}
    file.write_text(json.dumps(objects))
    tested = build(store, test_mode=True, object_labels=file)
    assert [item["data_samples"].object_labels for item in tested] == list(objects.values())
    trained = build(store, object_labels=file, max_pairs=4)
    for item in trained:
        sample = item["data_samples"]
        assert sample.object_labels == objects[sample.image_id]
    assert "object_labels" not in build(store)[0]["data_samples"]

    del objects["image3"]
    file.write_text(json.dumps(objects))
    build(store, object_labels=file)  # it has no caption
    with pytest.raises(ValueError, match="no entry for image 'image3'"):
        build(store, test_mode=True, object_labels=file)
    for wrong, message in (
        ("[]", "got a list"),
        ('{"a": "dog"}', "'a' must be a list of str, got 'dog'"),
        ("{", "cannot be read"),
        ('{"image1": [], "image1": ["dog"]}', "'image1' is repeated"),
    ):
        file.write_text(wrong)
        with pytest.raises(ValueError, match=message):
            build(store, object_labels=file)
    with pytest.raises(FileNotFoundError, match="no object labels at"):
        build(store, object_labels=tmp_path / "nowhere.json")


def test_repeated_ids_are_refused_for_testing_and_labels(tmp_path):
    build_store(tmp_path / "store", [["a"], ["b"], ["c"]], shard_size=1, ids=["x", "y", "x"])
    assert len(build([tmp_path / "store"])) == 3
    (tmp_path / "objects.json").write_text('{"x": [], "y": []}')
    for wrong in ({"test_mode": True}, {"object_labels": tmp_path / "objects.json"}):
        with pytest.raises(
            ValueError, match=r"image ids of .* must be unique, but 'x' is repeated"
        ):
            build([tmp_path / "store"], **wrong)


def test_repeated_ids_in_a_shard_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"shard-00000, must be unique, but 'x' is repeated"):
        build_store(tmp_path / "store", [["a"], ["b"]], ids=["x", "x"])


def test_captions_alone_are_trained_on_their_text_features(tmp_path):
    texts = ["a dog", "a cat", "the dog"]
    feats = build_caption_store(tmp_path / "store", texts)
    dataset = build([tmp_path / "store"], features="text")
    assert [item["data_samples"].gt_caption for item in dataset] == texts
    assert list(dataset.iter_captions()) == texts
    assert torch.equal(torch.stack([item["global_feats"] for item in dataset]), feats)
    # There is no image that a caption could be compared with.
    assert all("clip_score" not in item["data_samples"] for item in dataset)
    assert default_collate([dataset[0], dataset[1]])["global_feats"].shape == (2, 5)
    for settings, name in (
        ({}, "features='patch'"),
        ({"features": "global"}, "features='global'"),
        ({"features": "text", "test_mode": True}, "test_mode=True"),
        ({"features": "text", "min_clip_score": 0.5}, "min_clip_score=0.5"),
    ):
        with pytest.raises(ValueError, match=f"{name} needs images, but .* captions alone"):
            build([tmp_path / "store"], **settings)
