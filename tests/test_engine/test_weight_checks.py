"""Weights are refused with another vocabulary or CLIP than that of their training."""

import shutil

import pytest
import torch
from mmengine.config import Config

from pcm_plugin.apis.zoo import find_weights
from pcm_plugin.engine.checkpoints import load_weights
from pcm_plugin.engine.run_record import record_run
from pcm_plugin.errors import UserError
from pcm_plugin.formats.vocabulary import Vocabulary
from pcm_plugin.models.backbones.clip_weights import model_identity
from pcm_plugin.models.captioner_file import load_captioner
from pcm_plugin.toyworld import ASSETS
from tests.builders import build_store

OPENAI = {"model_name": "ViT-B-32-quickgelu", "pretrained": "openai"}


@pytest.fixture
def model():
    return torch.nn.Linear(2, 3)


@pytest.fixture
def config(tiny_settings):
    cfg = Config.fromfile("configs/pcm_coco.py")
    cfg.merge_from_dict(tiny_settings)
    return cfg


@pytest.fixture
def checkpoint(config, model, tmp_path):
    """Return a checkpoint of MMEngine's with the record of a run, as far as it is read."""
    info = {"run": record_run(config)}
    file = tmp_path / "epoch_1.pth"
    torch.save(
        {"state_dict": model.state_dict(), "message_hub": {"runtime_info": info}},
        file,
    )
    return str(file)


def test_another_vocabulary_of_the_same_size_is_refused(config, model, checkpoint, tmp_path):
    load_weights(model, checkpoint, config, ["test"])
    same = shutil.copy(config.model.vocabulary, tmp_path / "moved.txt")
    config.model.vocabulary = str(same)
    load_weights(model, checkpoint, config, ["test"])
    words = Vocabulary.from_file(same).words
    Vocabulary(words[::-1]).to_file(tmp_path / "other.txt")
    config.model.vocabulary = str(tmp_path / "other.txt")
    with pytest.raises(UserError, match=r"epoch_1\.pth was trained with another vocabulary") as e:
        load_weights(model, checkpoint, config, ["test"])
    assert f"{tmp_path}/other.txt (model.vocabulary; hash " in str(e.value)
    assert "set model.vocabulary to that of the training" in str(e.value)


def test_features_of_another_clip_are_refused(config, model, checkpoint, tmp_path):
    store = tmp_path / "store"
    build_store(store, [["a dog"], ["a cat"]], clip="ViT-B-32")
    config.test_dataloader.dataset.store = str(store)
    with pytest.raises(UserError, match=f"the CLIP random, but {store} is of ViT-B-32: use"):
        load_weights(model, checkpoint, config, ["test"])
    # Without a store, the CLIP of the config computes the features.
    config.clip = OPENAI
    with pytest.raises(UserError, match="`clip` of the config is of ViT-B-32-quickgelu, pretrain"):
        load_weights(model, checkpoint, config)
    config.clip.model_name, config.clip.pretrained = "random", None
    load_weights(model, checkpoint, config)


def test_a_local_clip_is_compared_by_its_content(model, tmp_path):
    folder = shutil.copytree(ASSETS / "clip", tmp_path / "copy")
    store = tmp_path / "store"
    build_store(store, [["a dog"]], clip=model_identity(f"local-dir:{ASSETS / 'clip'}"))
    cfg = Config(
        {
            "train_dataloader": {
                "dataset": {"type": "pcm_plugin.SynthCaptionDataset", "store": str(store)}
            },
            "clip": {"model_name": f"local-dir:{folder}"},
        }
    )
    file = tmp_path / "epoch_1.pth"
    info = {"run": record_run(cfg)}
    assert info["run"]["clip"].startswith("clip (sha256 ")
    weights = {"state_dict": model.state_dict(), "message_hub": {"runtime_info": info}}
    torch.save(weights, file)
    load_weights(model, str(file), cfg)
    (folder / "open_clip_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"`clip` of the config is of copy \(sha256 "):
        load_weights(model, str(file), cfg)


@pytest.mark.parametrize("trained", ["plain", "sclip"])
@pytest.mark.parametrize("used", ["plain", "sclip"])
def test_weights_of_another_patch_mode_are_refused(model, tmp_path, trained, used):
    clip = {"model_name": "ViT-B-32", "pool": 1}
    trained_clip = clip if trained == "plain" else {**clip, "patch_mode": trained}
    cfg = Config({"a": 1, "clip": trained_clip, "other": {"patch_mode": "x"}})
    meta = {"cfg": cfg.pretty_text}
    file = tmp_path / "epoch_1.pth"
    torch.save({"state_dict": model.state_dict(), "meta": meta}, file)
    load_weights(model, str(file))
    other = Config({"clip": {**clip, "patch_mode": used}})
    if trained == used:
        load_weights(model, str(file), other)
    else:
        with pytest.raises(UserError, match=f"patch_mode='{trained}', but .* is '{used}': set it"):
            load_weights(model, str(file), other)


def test_a_captioner_file_states_patch_mode_vocabulary_and_clip(tmp_path):
    path = find_weights("pcm-net_toy")
    captioner = load_captioner(path)
    masked = Config({"clip": {"model_name": "x", "patch_mode": "maskclip"}})
    with pytest.raises(UserError, match=r"patch_mode='plain', but clip\.patch_mode is 'maskclip'"):
        load_weights(captioner, str(path), masked)
    words = captioner.vocabulary.words
    for name, found in (("same", words), ("other", words[::-1])):
        Vocabulary(found).to_file(tmp_path / f"{name}.txt")
    settings = {"type": "pcm_plugin.PCMNet", "vocabulary": str(tmp_path / "same.txt")}
    cfg = Config({"model": settings, "clip": {"model_name": "x"}})
    load_weights(captioner, str(path), cfg)
    cfg.model.vocabulary = str(tmp_path / "other.txt")
    with pytest.raises(UserError, match=r"pcm-net_toy.*with another vocabulary than .*other\.txt"):
        load_weights(captioner, str(path), cfg)
