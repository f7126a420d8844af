"""Captioner files: a round trip preserves the captioner, and reading runs no foreign code."""

import json
import os
import shutil

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip import factory
from safetensors import safe_open
from safetensors.torch import save_file

from pcm_plugin.apis import CaptionInferencer
from pcm_plugin.apis.model_hash import model_hash
from pcm_plugin.apis.zoo import find_weights
from pcm_plugin.engine.checkpoints import load_weights
from pcm_plugin.errors import UserError
from pcm_plugin.models import OpenCLIPBackbone
from pcm_plugin.models.captioner_file import is_captioner, load_captioner, save_captioner
from pcm_plugin.registry import MODELS
from pcm_plugin.toyworld import ASSETS

FILE = find_weights("pcm-net_toy")


@pytest.fixture(scope="module")
def model():
    return load_captioner(FILE)


def settings_of(path):
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def rewrite(path, **metadata):
    """Write the packaged file with changed metadata."""
    with safe_open(FILE, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    clip = {"model_name": f"local-dir:{ASSETS / 'clip'}", "pretrained": None, "pool": 1}
    facts = settings_of(FILE) | {"clip": json.dumps(clip)} | metadata
    save_file(tensors, path, facts)
    return path


def own_settings():
    return json.loads(settings_of(FILE)["model"])


def test_round_trip_preserves_the_captioner(model, tmp_path):
    path = tmp_path / "new" / "captioner.safetensors"
    clip = {"model_name": f"local-dir:{ASSETS / 'clip'}"}
    save_captioner(path, model, own_settings(), clip, {"name": "mine"})
    again = load_captioner(path)
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    assert again.vocabulary == model.vocabulary
    assert again.neck.concept_words == model.neck.concept_words
    torch.testing.assert_close(
        again.neck.concept_bank.embeddings, model.neck.concept_bank.embeddings
    )
    assert again.decoding == model.decoding
    assert not again.training
    assert json.loads(settings_of(path)["about"]) == {"name": "mine"}
    assert (path.parent / "captioner.clip" / "open_clip_config.json").is_file()
    save_captioner(path, model, own_settings(), clip, half=True)
    half = load_captioner(path)
    weight = "decoder.output.weight"
    assert torch.equal(half.state_dict()[weight], model.state_dict()[weight].half().float())


def test_the_patch_mode_is_saved(model, tmp_path):
    clip = {"model_name": f"local-dir:{ASSETS / 'clip'}", "patch_mode": "sclip"}
    saved = []
    for folder, mode in (("plain", "plain"), ("again", "plain"), ("sclip", "sclip")):
        path = tmp_path / folder / "captioner.safetensors"
        save_captioner(path, model, own_settings(), {**clip, "patch_mode": mode})
        saved.append(load_captioner(path))
    again = saved[-1]
    assert (saved[0].backbone.patch_mode, again.backbone.patch_mode) == ("plain", "sclip")
    hashes = [model_hash(captioner) for captioner in saved]
    assert hashes[0] == hashes[1] != hashes[2]
    images = torch.randn(2, 3, 112, 112)
    assert not torch.allclose(again.backbone(images)[0], model.backbone(images)[0])


def test_the_text_memory_is_saved(model, tmp_path):
    texts = F.normalize(torch.randn(9, 128, generator=torch.Generator().manual_seed(0)), dim=-1)
    neck = {"type": "pcm_plugin.GlobalPrefix", "clip_dim": 128, "embed_dims": 128}
    settings = own_settings() | {"neck": neck | {"text_memory": "/nowhere"}}
    built = MODELS.build({**settings, "neck": neck, "vocabulary": model.vocabulary})
    built.neck.set_text_memory(texts.half())
    path = tmp_path / "decap.safetensors"
    save_captioner(path, built, settings, {"model_name": f"local-dir:{ASSETS / 'clip'}"})
    again = load_captioner(path)
    assert torch.equal(again.neck.text_memory, texts.half())
    images = torch.randn(2, 3, 112, 112)
    expected = built.eval()(global_feats=again.extract_feat(images)[1], mode="predict")
    found = again(images=images, mode="predict")
    assert [s.pred_caption for s in found] == [s.pred_caption for s in expected]
    load_weights(built, str(path))


def test_a_local_clip_is_saved_next_to_the_file(model, tmp_path):
    # A CLIP of the package, or next to the file, is not copied.
    assert (
        json.loads(settings_of(FILE)["clip"])["model_name"] == "local-dir:../toyworld/assets/clip"
    )
    assert not list(FILE.parent.glob("*.clip"))
    shutil.copytree(ASSETS / "clip", tmp_path / "clip")
    clip = {"model_name": f"local-dir:{tmp_path / 'clip'}"}
    save_captioner(tmp_path / "named.safetensors", model, own_settings(), clip)
    named = json.loads(settings_of(tmp_path / "named.safetensors")["clip"])["model_name"]
    assert named == "local-dir:clip"
    assert not (tmp_path / "named.clip").exists()
    # A CLIP in a subfolder is copied.
    shutil.copytree(ASSETS / "clip", tmp_path / "deep" / "clip")
    clip = {"model_name": f"local-dir:{tmp_path / 'deep' / 'clip'}"}
    save_captioner(tmp_path / "captioner.safetensors", model, own_settings(), clip)
    assert json.loads(settings_of(tmp_path / "captioner.safetensors")["clip"])["model_name"] == (
        "local-dir:captioner.clip"
    )
    save_captioner(tmp_path / "c.safetensors", model, own_settings(), {"model_name": "ViT-B-32"})
    assert json.loads(settings_of(tmp_path / "c.safetensors")["clip"])["model_name"] == "ViT-B-32"


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_a_weights_file_of_clip_is_saved_with_its_activation(model, tmp_path, quick_gelu):
    config = json.loads((ASSETS / "clip" / "open_clip_config.json").read_text())["model_cfg"]
    config["text_cfg"]["hf_tokenizer_name"] = str(ASSETS / "clip")
    name = "exported-quickgelu" if quick_gelu else "exported"
    (tmp_path / f"{name}.json").write_text(json.dumps(config | {"quick_gelu": quick_gelu}))
    open_clip.add_model_config(tmp_path / f"{name}.json")
    weights = str(ASSETS / "clip" / "open_clip_model.safetensors")
    path = tmp_path / "far" / "captioner.safetensors"
    try:
        save_captioner(path, model, own_settings(), {"model_name": name, "pretrained": weights})
        expected = OpenCLIPBackbone(name, weights)
        said = expected.encode_text(["two blue cars beside a tree"])
    finally:
        factory._MODEL_CONFIG_PATHS.remove(tmp_path / f"{name}.json")
        del factory._MODEL_CONFIGS[name]
    named = json.loads(settings_of(path)["clip"])
    assert (named["model_name"], named["pretrained"]) == ("local-dir:captioner.clip", None)
    shutil.move(tmp_path / "far", tmp_path / "near")
    again = load_captioner(tmp_path / "near" / "captioner.safetensors")
    images = torch.randn(2, 3, 112, 112)
    plain = model.extract_feat(images)[1]
    found = again.extract_feat(images)[1]
    torch.testing.assert_close(found, expected(images)[1])
    assert torch.allclose(found, plain, atol=1e-5) != quick_gelu
    text = ["two blue cars beside a tree"]
    torch.testing.assert_close(again.backbone.encode_text(text), said)


@pytest.mark.parametrize(
    "kind",
    ["os.system", "pcm_plugin.os.system", "Adam", "mmengine.ToyModel", "pcm_plugin.load_captioner"],
)
@pytest.mark.parametrize("place", ["model", "decoder"])
def test_only_models_of_this_package_are_built(kind, place, tmp_path):
    settings = own_settings()
    (settings if place == "model" else settings["decoder"])["type"] = kind
    path = rewrite(tmp_path / "evil.safetensors", model=json.dumps(settings))
    with pytest.raises(ValueError, match="must be a model of pcm_plugin"):
        load_captioner(path)


def test_paths_in_the_metadata_are_not_read(tmp_path):
    settings = own_settings()
    settings["neck"] |= {"concepts": "/etc/passwd", "clip_head": "/etc/passwd"}
    settings |= {"vocabulary": "/etc/passwd", "init_cfg": {"checkpoint": "/etc/passwd"}}
    load_captioner(rewrite(tmp_path / "c.safetensors", model=json.dumps(settings)))


def test_another_clip_is_refused(tmp_path):
    with safe_open(FILE, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    tensors["neck.matcher.clip_head.proj"] = tensors["neck.matcher.clip_head.proj"].flip(0)
    clip = {"model_name": f"local-dir:{ASSETS / 'clip'}", "pretrained": None, "pool": 1}
    facts = settings_of(FILE) | {"clip": json.dumps(clip)}
    save_file(tensors, tmp_path / "c.safetensors", facts)
    with pytest.raises(ValueError, match="trained on features of another CLIP"):
        load_captioner(tmp_path / "c.safetensors")


def test_a_damaged_file_is_named(tmp_path):
    path = shutil.copy(FILE, tmp_path / "half.safetensors")
    os.truncate(path, FILE.stat().st_size - 100)
    for read in (is_captioner, load_captioner, CaptionInferencer):
        with pytest.raises(UserError, match=r"half\.safetensors is not .*, or it is damaged"):
            read(path)


def test_errors_name_the_file_and_the_fix(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="no captioner at"):
        load_captioner(tmp_path / "nowhere.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(ValueError, match="is not a captioner"):
        load_captioner(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="got weights: write one with"):
        load_captioner(tmp_path / "weights.safetensors")
    assert not is_captioner(tmp_path / "weights.safetensors")
    assert is_captioner(FILE)
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        save_captioner(tmp_path / "c.pth", model, own_settings(), {"model_name": "ViT-B-32"})
    gone = {"model_name": "local-dir:gone", "pretrained": None, "pool": 1}
    with pytest.raises(FileNotFoundError, match="no folder"):
        load_captioner(rewrite(tmp_path / "c.safetensors", clip=json.dumps(gone)))
    small = own_settings()
    small["decoder"]["num_layers"] = 1
    with pytest.raises(ValueError, match="does not match its own settings"):
        load_captioner(rewrite(tmp_path / "c.safetensors", model=json.dumps(small)))
    named = {"model_name": "ViT-B-32", "pretrained": "../evil.bin", "pool": 1}
    with pytest.raises(ValueError, match="must be a tag of open_clip, got the file"):
        load_captioner(rewrite(tmp_path / "c.safetensors", clip=json.dumps(named)))
    own = {"model_name": "ViT-B-32", "pretrained": str(FILE)}
    with pytest.raises(ValueError, match="must say the activation"):
        save_captioner(tmp_path / "c.safetensors", model, own_settings(), own)
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "open_clip_model.bin").touch()
    with pytest.raises(ValueError, match=r"must contain \.safetensors weights, got none"):
        save_captioner(
            tmp_path / "far" / "c.safetensors",
            model,
            own_settings(),
            {"model_name": f"local-dir:{tmp_path / 'clip'}"},
        )
