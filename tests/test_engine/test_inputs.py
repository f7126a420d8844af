import shlex

import pytest
import torch
from mmengine.config import Config

from pcm_plugin.engine.inputs import (
    build_command,
    check_features,
    check_inputs,
    hash_inputs,
)
from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.concept_set import save_concepts
from pcm_plugin.formats.shards import Shard, ShardFolder
from tests.builders import build_store


def config(tmp_path, **paths):
    settings = {name: str(tmp_path / name) for name in ("words", "concepts", "train", "val")}
    settings.update(paths)
    return Config(
        dict(
            clip=dict(model="ViT-B-32"),
            model=dict(vocabulary=settings["words"], concepts=settings["concepts"]),
            train_dataloader=dict(store=settings["train"]),
            test_dataloader=dict(store=settings["val"]),
            required_files=[
                dict(key="model.vocabulary", command="make words"),
                dict(key="model.concepts", command="embed --model {clip[model]} {path}"),
                dict(key="train_dataloader.store", command="make words"),
                dict(key="test_dataloader.store", command="extract {path}"),
            ],
        )
    )


def test_names_every_missing_file_and_the_command_that_makes_it(tmp_path):
    with pytest.raises(MissingFileError) as caught:
        check_inputs(config(tmp_path), loops=("train", "val"))
    message = str(caught.value)
    assert "3 files that do not exist" in message
    for name in ("words", "concepts", "train"):
        assert str(tmp_path / name) in message
    assert f"made by: embed --model ViT-B-32 {tmp_path / 'concepts'}" in message
    assert message.count("made by: make words") == 1
    assert "extract" not in message


def test_a_path_with_a_space_is_quoted_in_the_command(tmp_path):
    cfg = config(tmp_path / "my data", concepts="my concepts")
    entry = dict(key="model.concepts", command="embed{split} {clip[model]} {folder}/x {path}")
    cfg.clip.model = "local-dir:a b"
    command = build_command(cfg, entry | {"split": " --split val"}, "my data/concepts")
    assert shlex.split(command) == [
        *("embed", "--split", "val", "local-dir:a b", "my data/x", "my data/concepts"),
    ]


def test_each_command_checks_what_it_reads(tmp_path):
    with pytest.raises(MissingFileError) as caught:
        check_inputs(config(tmp_path), loops=("test",))
    assert f"extract {tmp_path / 'val'}" in str(caught.value)
    assert str(tmp_path / "train") not in str(caught.value)


def test_silent_when_all_is_there_or_not_wanted(tmp_path):
    for name in ("words", "train"):
        (tmp_path / name).touch()
    check_inputs(config(tmp_path, concepts=None), loops=("train",))


def test_looks_where_the_final_config_says(tmp_path):
    cfg = config(tmp_path)
    cfg.merge_from_dict({f"model.{name}": str(tmp_path) for name in ("vocabulary", "concepts")})
    cfg.merge_from_dict({"train_dataloader.store": str(tmp_path)})
    check_inputs(cfg, loops=("train",))


def test_a_clip_that_brings_its_weights_gets_no_others():
    cfg = Config.fromfile("configs/pcm_coco.py")
    cfg.clip.update(model="local-dir:my clip", pretrained=None)
    with pytest.raises(MissingFileError) as caught:
        check_inputs(cfg, ["train"])
    assert "--model 'local-dir:my clip' --pool 1 --out" in str(caught.value)
    assert "--pretrained" not in str(caught.value)


def test_what_makes_a_file_of_a_folder_names_the_folder_that_the_config_says(tmp_path):
    cfg = Config.fromfile("configs/syntic/syntic_toy.py")
    cfg.train_dataloader.dataset.refined_features = f"{tmp_path}/mine/features.safetensors"
    with pytest.raises(MissingFileError, match=rf"--method contrast .*--out {tmp_path}/mine$"):
        check_inputs(cfg, ("train",))


def test_a_prerequisite_that_is_no_setting_is_an_error(tmp_path):
    cfg = config(tmp_path)
    cfg.required_files[0].key = "model.vocabularies"
    with pytest.raises(UserError, match=r"model\.vocabularies"):
        check_inputs(cfg, loops=("train",))


@pytest.fixture
def features(tmp_path):
    """A config of a store and a concept file, both of the CLIP called random."""
    build_store(tmp_path / "store", [["a dog"], ["a cat"]])
    concepts = tmp_path / "concepts.safetensors"
    save_concepts(concepts, ["dog", "cat"], torch.eye(2, 5), "random")
    return Config(
        dict(
            model=dict(neck=dict(concepts=str(concepts))),
            train_dataloader=dict(dataset=dict(store=str(tmp_path / "store"))),
        )
    )


def test_features_and_concepts_of_one_clip_pass(features):
    check_features(features, loops=("train",))
    save_concepts(features.model.neck.concepts, ["dog", "cat"], torch.eye(2, 5))
    check_features(features, loops=("train",))


def test_features_and_concepts_of_two_clips_are_refused(features):
    path = features.model.neck.concepts
    save_concepts(path, ["dog", "cat"], torch.eye(2, 5), "random", "openai")
    with pytest.raises(ValueError, match=r"one CLIP") as caught:
        check_features(features, loops=("train",))
    assert f"{path}: random, pretrained=openai" in str(caught.value)
    assert f"{features.train_dataloader.dataset.store}: random" in str(caught.value)


@pytest.mark.parametrize("key", ["backbone", "vision_encoder.clip", "vision_backbone.clip"])
def test_a_clip_of_the_model_is_that_of_the_features(features, key):
    store = features.train_dataloader.dataset.store
    clip = dict(model_name="random", pretrained=None)
    part, *inner = key.split(".")
    features.model[part] = {inner[0]: clip} if inner else clip
    check_features(features, loops=("train",))
    clip["model_name"] = "ViT-B-16"
    features.model[part] = {inner[0]: clip} if inner else clip
    with pytest.raises(ValueError, match=r"one CLIP") as caught:
        check_features(features, loops=("train",))
    assert f"model.{key}: ViT-B-16" in str(caught.value)
    assert f"{store}: random" in str(caught.value)


def test_a_memory_is_of_the_clip_of_the_features(features, tmp_path):
    build_store(tmp_path / "memory", [["a dog"]], seed=3)
    features.model.neck.memory = str(tmp_path / "memory")
    check_features(features, loops=("train",))
    manifest = tmp_path / "memory" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"random"', '"another"'))
    with pytest.raises(ValueError, match=r"memory: another"):
        check_features(features, loops=("train",))


def test_each_loop_has_objects_or_none(features, tmp_path):
    file = tmp_path / "objects.json"
    file.write_text('{"image0": ["dog"], "image1": ["dog"]}')
    features.train_dataloader.dataset.object_labels = str(file)
    features.val_dataloader = features.train_dataloader
    check_features(features, loops=("train", "val"))
    features.val_dataloader = dict(dataset=dict(store=features.train_dataloader.dataset.store))
    with pytest.raises(ValueError, match="train has object_labels= and val has none"):
        check_features(features, loops=("train", "val"))
    # of a captioner that was trained with objects
    with pytest.raises(ValueError, match="train has object_labels= and val has none"):
        check_features(features, loops=("val",))


def test_objects_that_are_no_concepts_are_named_at_the_start(features, tmp_path):
    file = tmp_path / "objects.json"
    features.train_dataloader.dataset.object_labels = str(file)
    file.write_text('{"image0": ["dog"], "image1": ["cat", "dog"]}')
    check_features(features, loops=("train",))
    file.write_text('{"image0": ["dog", "unicorn"], "image1": ["cat"]}')
    check_features(features, loops=("test",))
    with pytest.raises(ValueError, match=r"1 objects that are no concepts.*\['unicorn'\]"):
        check_features(features, loops=("train",))


def test_concepts_of_the_captioner_itself_are_of_that_clip_too(features):
    path = features.model.neck.concepts
    save_concepts(path, ["dog", "cat"], torch.eye(2, 5), "random", "openai")
    features.model = dict(neck=dict(), concepts=path)
    with pytest.raises(ValueError, match=r"one CLIP"):
        check_features(features, loops=("train",))


def test_a_language_model_is_known_by_its_files(tmp_path):
    found = []
    for name, weights in (("one", "1"), ("two", "1"), ("three", "3")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_text(weights)
        settings = dict(language_model=str(tmp_path / name))
        key = "model.language_model"
        cfg = Config(dict(model=settings, required_files=[dict(key=key, command="make it")]))
        found.append(hash_inputs(cfg, ("train",))[key])
    assert found[0] == found[1] != found[2]


def test_labels_of_a_detector_are_looked_for_and_known_by_their_content(tmp_path):
    cfg = Config.fromfile("configs/syntic/syntic_toy.py")
    # The other files are not there.
    cfg.required_files = [e for e in cfg.required_files if e["key"].endswith(".object_labels")]
    assert hash_inputs(cfg, ("train",)) == {}
    file = tmp_path / "objects.json"
    cfg.train_dataloader.dataset.object_labels = str(file)
    with pytest.raises(
        MissingFileError, match=rf"{file}  \(train_dataloader.dataset.object_labels\)"
    ):
        check_inputs(cfg, ("train",))
    found = []
    for labels in ('{"a": ["dog"]}', '{"a": ["cat"]}'):
        file.write_text(labels)
        found.append(hash_inputs(cfg, ("train",)))
    one, other = found
    assert one.keys() == other.keys()
    assert one != other


def test_an_unfinished_store_is_refused_by_the_loop_that_reads_it(features):
    path = features.train_dataloader.dataset.store
    plan = [Shard(f"shard-{i:05d}", 2, "0") for i in range(3)]
    ShardFolder.open_for_write(path, "pcm-features", {"model": "random", "seed": 0}, plan)
    check_features(features, loops=("test",))
    with pytest.raises(ValueError, match="has 1 of 3 shards"):
        check_features(features, loops=("train",))
