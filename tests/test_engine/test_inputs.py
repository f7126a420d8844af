import shlex

import pytest
import torch
from mmengine.config import Config

from pcm_plugin.commands.build_commands import build_command, check_inputs
from pcm_plugin.engine.config_modules import list_input_files
from pcm_plugin.engine.feature_checks import check_features
from pcm_plugin.engine.inputs import drop_clip_head, hash_inputs, is_validated_on_held_out
from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.concept_set import save_concepts
from pcm_plugin.formats.required_file import FileKind, RequiredFile
from pcm_plugin.formats.shards import Shard, ShardFolder
from tests.builders import build_store

DATASET = "pcm_plugin.SynthCaptionDataset"


def config(tmp_path, **paths):
    names = ("vocabulary", "concepts", "train", "test")
    files = {name: str(tmp_path / name) for name in names} | paths
    store = {"type": DATASET}
    return Config(
        dict(
            root=str(tmp_path),
            captions="captions.json",
            pipeline="sd",
            clip=dict(model_name="ViT-B-32", pretrained="openai"),
            build_commands="generate_from_captions",
            model=dict(
                type="pcm_plugin.PCMNet",
                vocabulary=files["vocabulary"],
                neck=dict(type="pcm_plugin.PCMMixup", concepts=files["concepts"]),
            ),
            train_dataloader=dict(dataset={**store, "store": files["train"]}),
            test_dataloader=dict(dataset={**store, "store": files["test"]}),
        )
    )


def test_names_every_missing_file_and_the_command_that_makes_it(tmp_path):
    with pytest.raises(MissingFileError) as caught:
        check_inputs(config(tmp_path), loops=("train", "val"))
    message = str(caught.value)
    assert "3 files that do not exist" in message
    for key in ("model.vocabulary", "model.neck.concepts", "train_dataloader.dataset.store"):
        assert f"({key})" in message
    assert (
        "made by: pcm build-concepts --captions captions.json --templates simple "
        f"--model ViT-B-32 --pretrained openai --out {tmp_path / 'concepts'}"
    ) in message
    assert "test_dataloader" not in message


def test_files_of_one_command_are_listed_together(tmp_path):
    cfg = config(tmp_path)
    cfg.build_commands = "make_demo"
    with pytest.raises(MissingFileError) as caught:
        check_inputs(cfg, loops=("train", "test"))
    assert str(caught.value).count("made by: pcm demo --recipe toy") == 1


def test_a_path_with_a_space_is_quoted_in_the_command(tmp_path):
    cfg = config(tmp_path)
    cfg.root, cfg.clip.model_name = "my data", "local-dir:a b"
    file = RequiredFile("val_dataloader.dataset.store", FileKind.FEATURE_STORE, "my data/store")
    assert shlex.split(build_command(cfg, file)) == [
        *("pcm", "extract", "my data/images", "--captions", "captions.json"),
        *("--split", "val", "--model", "local-dir:a b", "--pretrained", "openai"),
        *("--out", "my data/store"),
    ]


def test_each_command_checks_what_it_reads(tmp_path):
    with pytest.raises(MissingFileError) as caught:
        check_inputs(config(tmp_path), loops=("test",))
    assert f"--out {tmp_path / 'test'}" in str(caught.value)
    assert str(tmp_path / "train") not in str(caught.value)


def test_existing_and_unset_files_are_not_reported(tmp_path):
    for name in ("vocabulary", "train"):
        (tmp_path / name).touch()
    check_inputs(config(tmp_path, concepts=None), loops=("train",))


def test_paths_of_the_final_config_are_checked(tmp_path):
    cfg = config(tmp_path)
    keys = ("model.vocabulary", "model.neck.concepts", "train_dataloader.dataset.store")
    cfg.merge_from_dict(dict.fromkeys(keys, str(tmp_path)))
    check_inputs(cfg, loops=("train",))


def test_a_clip_with_its_own_weights_needs_no_pretrained_option():
    cfg = Config.fromfile("configs/pcm_coco.py")
    cfg.clip.update(model_name="local-dir:my clip", pretrained=None)
    with pytest.raises(MissingFileError) as caught:
        check_inputs(cfg, ["train"])
    assert "--model 'local-dir:my clip' --pool 1 --out" in str(caught.value)
    assert "--pretrained" not in str(caught.value)
    cfg.clip.patch_mode = "sclip"
    with pytest.raises(MissingFileError, match=r"--pool 1 --patch-mode sclip --out") as caught:
        check_inputs(cfg, ["train"])
    concepts = [line for line in str(caught.value).splitlines() if "build-concepts" in line]
    assert concepts
    assert "--patch-mode" not in concepts[0]


def test_the_command_for_a_file_in_a_folder_names_the_folder(tmp_path):
    cfg = Config.fromfile("configs/syntic/syntic_toy.py")
    cfg.train_dataloader.dataset.refined_features = f"{tmp_path}/mine/features.safetensors"
    command = rf"--method contrast --out {tmp_path}/mine$"
    with pytest.raises(MissingFileError, match=command):
        check_inputs(cfg, ("train",))
    # Negatives are chosen from the captions that are trained on.
    cfg.train_dataloader.dataset.pairs = f"{tmp_path}/pairs.safetensors"
    command = rf"--method contrast --among {tmp_path}/pairs.safetensors --out {tmp_path}/mine$"
    with pytest.raises(MissingFileError, match=command):
        check_inputs(cfg, ("train",))


def test_a_file_that_no_command_creates_is_still_reported(tmp_path):
    cfg = config(tmp_path)
    cfg.build_commands = None
    with pytest.raises(MissingFileError, match=r"missing: .*vocabulary  \(model.vocabulary\)"):
        check_inputs(cfg, ("train",))


def test_the_name_of_a_language_model_is_not_a_file(tmp_path):
    model = {"type": "pcm_plugin.PrefixCaptioner", "language_model": "openai-community/gpt2"}
    cfg = Config(dict(model=model, root="r", build_commands="generate_from_captions"))
    check_inputs(cfg, ("train",))
    cfg.build_commands = "make_demo"
    with pytest.raises(MissingFileError, match=r"pcm build-language-model r/captions_train.json"):
        check_inputs(cfg, ("train",))


def test_unknown_build_commands_are_an_error(tmp_path):
    cfg = config(tmp_path)
    cfg.build_commands = "make"
    with pytest.raises(UserError, match=r"`build_commands` must be one of .*, got 'make'"):
        check_inputs(cfg, loops=("train",))


def test_the_clip_head_is_dropped_wherever_it_is(tmp_path):
    cfg = config(tmp_path)
    cfg.model.neck.clip_head = "head.safetensors"
    assert FileKind.CLIP_HEAD in {file.kind for file in list_input_files(cfg)}
    drop_clip_head(cfg)
    assert cfg.model.neck.clip_head is None


@pytest.fixture
def features(tmp_path):
    """Return a config with a store and a concept file of a CLIP named random."""
    build_store(tmp_path / "store", [["a dog"], ["a cat"]])
    concepts = tmp_path / "concepts.safetensors"
    save_concepts(concepts, ["dog", "cat"], torch.eye(2, 5), "random")
    return Config(
        dict(
            model=dict(neck=dict(type="pcm_plugin.PCMMixup", concepts=str(concepts))),
            train_dataloader=dict(dataset=dict(type=DATASET, store=str(tmp_path / "store"))),
        )
    )


def test_features_and_concepts_of_one_clip_pass(features):
    check_features(features, loops=("train",))
    save_concepts(features.model.neck.concepts, ["dog", "cat"], torch.eye(2, 5))
    check_features(features, loops=("train",))


def test_features_and_concepts_of_two_clips_are_rejected(features):
    path = features.model.neck.concepts
    save_concepts(path, ["dog", "cat"], torch.eye(2, 5), "random", "openai")
    with pytest.raises(ValueError, match=r"one CLIP") as caught:
        check_features(features, loops=("train",))
    assert f"{path}: random, pretrained=openai" in str(caught.value)
    assert f"{features.train_dataloader.dataset.store}: random" in str(caught.value)


@pytest.mark.parametrize("key", ["backbone", "vision_encoder.backbone", "vision_backbone.backbone"])
def test_another_clip_in_the_model_is_rejected(features, key):
    store = features.train_dataloader.dataset.store
    clip = dict(type="pcm_plugin.OpenCLIPBackbone", model_name="random", pretrained=None)
    part, *inner = key.split(".")
    features.model[part] = {inner[0]: clip} if inner else clip
    check_features(features, loops=("train",))
    clip["model_name"] = "ViT-B-16"
    features.model[part] = {inner[0]: clip} if inner else clip
    with pytest.raises(ValueError, match=r"one CLIP") as caught:
        check_features(features, loops=("train",))
    assert f"model.{key}: ViT-B-16" in str(caught.value)
    assert f"{store}: random" in str(caught.value)


def test_patches_of_several_modes_are_rejected(features, tmp_path):
    store = features.train_dataloader.dataset.store
    features.model.neck.patch_dim = 6
    build_store(tmp_path / "test", [["a dog"]])
    features.test_dataloader = dict(dataset=dict(type=DATASET, store=str(tmp_path / "test")))
    check_features(features, loops=("train", "test"))
    manifest = tmp_path / "store" / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(
        text.replace('"model": "random"', '"model": "random", "patch_mode": "sclip"')
    )
    assert manifest.read_text() != text
    with pytest.raises(ValueError, match="must have one patch_mode") as caught:
        check_features(features, loops=("train", "test"))
    assert f"{store}: sclip\n  {tmp_path / 'test'}: plain" in str(caught.value)
    # Inference would compute other patches than those of the training.
    features.clip = dict(model_name="random", patch_mode="sclip")
    check_features(features, loops=("train",))
    features.clip.patch_mode = "maskclip"
    with pytest.raises(ValueError, match="clip: maskclip"):
        check_features(features, loops=("train",))
    features.clip.patch_mode = "dense"
    with pytest.raises(ValueError, match="`patch_mode` must be one of plain, maskclip, sclip"):
        check_features(features, loops=("train",))
    features.clip.patch_mode = "sclip"
    clip = dict(type="pcm_plugin.OpenCLIPBackbone", model_name="random")
    features.model.backbone = clip
    with pytest.raises(ValueError, match=r"model\.backbone: plain"):
        check_features(features, loops=("train",))
    # Captioners of global features are not affected.
    neck = features.model.neck
    features.model.neck = {**neck, "type": "pcm_plugin.GlobalPrefix"}
    features.model.neck.pop("patch_dim")
    check_features(features, loops=("train",))


def test_stores_without_patches_have_no_patch_mode(features, tmp_path):
    build_store(tmp_path / "test", [["a dog"]])
    features.model.neck.patch_dim = 6
    features.test_dataloader = dict(dataset=dict(type=DATASET, store=str(tmp_path / "test")))
    manifest = tmp_path / "store" / "manifest.json"
    text = manifest.read_text()
    settings = '"model": "random", "patch_mode": "sclip", "patches": false'
    manifest.write_text(text.replace('"model": "random"', settings))
    check_features(features, loops=("train", "test"))


def test_a_memory_of_another_clip_is_rejected(features, tmp_path):
    build_store(tmp_path / "memory", [["a dog"]], seed=3)
    memory = dict(type="pcm_plugin.GlobalPrefix", text_memory=str(tmp_path / "memory"))
    features.model.other = memory
    check_features(features, loops=("train",))
    manifest = tmp_path / "memory" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"random"', '"another"'))
    with pytest.raises(ValueError, match=r"memory: another"):
        check_features(features, loops=("train",))


def test_object_labels_of_only_some_loops_are_rejected(features, tmp_path):
    file = tmp_path / "objects.json"
    file.write_text('{"image0": ["dog"], "image1": ["dog"]}')
    features.train_dataloader.dataset.object_labels = str(file)
    features.val_dataloader = features.train_dataloader
    check_features(features, loops=("train", "val"))
    features.val_dataloader = dict(
        dataset=dict(type=DATASET, store=features.train_dataloader.dataset.store)
    )
    with pytest.raises(ValueError, match="dataset of train has them, that of val does not"):
        check_features(features, loops=("train", "val"))
    # the captioner was trained with object labels
    with pytest.raises(ValueError, match="dataset of train has them, that of val does not"):
        check_features(features, loops=("val",))


def test_object_labels_that_are_not_concepts_are_reported(features, tmp_path):
    file = tmp_path / "objects.json"
    features.train_dataloader.dataset.object_labels = str(file)
    file.write_text('{"image0": ["dog"], "image1": ["cat", "dog"]}')
    check_features(features, loops=("train",))
    file.write_text('{"image0": ["dog", "unicorn"], "image1": ["cat"]}')
    check_features(features, loops=("test",))
    with pytest.raises(ValueError, match=r"1 object labels that are not concepts.*\['unicorn'\]"):
        check_features(features, loops=("train",))


def test_concepts_of_the_captioner_are_compared_too(features):
    path = features.model.neck.concepts
    save_concepts(path, ["dog", "cat"], torch.eye(2, 5), "random", "openai")
    prompt = dict(type="pcm_plugin.EntityPrompt", concepts=path)
    features.model = dict(type="pcm_plugin.PrefixCaptioner", entity_prompt=prompt)
    with pytest.raises(ValueError, match=r"one CLIP"):
        check_features(features, loops=("train",))


def test_a_language_model_is_hashed_by_its_files(tmp_path):
    found = []
    for name, weights in (("one", "1"), ("two", "1"), ("three", "3")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_text(weights)
        path = str(tmp_path / name)
        cfg = Config(dict(model=dict(type="pcm_plugin.PrefixCaptioner", language_model=path)))
        found.append(hash_inputs(cfg, ("train",))["model.language_model"])
    assert found[0] == found[1] != found[2]


def test_a_second_clip_is_hashed_by_its_files(tmp_path):
    def found(name, pretrained=None):
        decoding = dict(rerank="ranks", rerank_clip=name, rerank_clip_pretrained=pretrained)
        return hash_inputs(Config(dict(model=dict(decoding=decoding))), ("test",))

    assert found("ViT-L-14", "openai") == found("hf-hub:a/b") == {}
    folder = tmp_path / "clip"
    folder.mkdir()
    for file, place in (
        (folder / "open_clip_model.safetensors", (f"local-dir:{folder}",)),
        (tmp_path / "clip.pt", ("ViT-L-14", str(tmp_path / "clip.pt"))),
    ):
        file.write_text("1")
        one = found(*place)
        file.write_text("2")
        other = found(*place)
        assert one.keys() == other.keys() == {"model.decoding.rerank_clip"}
        assert one != other


def test_object_labels_are_checked_and_hashed_by_content(tmp_path):
    cfg = Config.fromfile("configs/syntic/syntic_toy.py")
    cfg.model = None  # nor are its files there
    cfg.train_dataloader.dataset = dict(type=DATASET)
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


def test_an_incomplete_store_is_rejected_by_the_loop_that_reads_it(features):
    path = features.train_dataloader.dataset.store
    plan = [Shard(f"shard-{i:05d}", 2, "0") for i in range(3)]
    ShardFolder.open_for_write(path, "pcm-features", {"model": "random", "seed": 0}, plan)
    check_features(features, loops=("test",))
    with pytest.raises(ValueError, match="has 1 of 3 shards"):
        check_features(features, loops=("train",))


def test_a_held_out_split_is_recognized_by_its_references():
    held_out = {"store": "data/train_store", "references": "data/references.jsonl"}
    for dataset, expected in (
        (held_out, True),
        ({**held_out, "references": None}, False),
        ({"store": "data/val_store"}, False),
    ):
        for store in ("data/train_store", "data/pool/store"):
            training = {"dataset": {"store": store}}
            cfg = Config({"train_dataloader": training, "val_dataloader": {"dataset": dataset}})
            assert is_validated_on_held_out(cfg) is expected
    assert not is_validated_on_held_out(Config({"val_dataloader": None}))
