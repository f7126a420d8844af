"""Weights files of CLIPs are read without running code, and with the right activation."""

import io
import json
import pickle
import sys
import zipfile
from pathlib import Path

import open_clip
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from safetensors.torch import save_file

from pcm_plugin.commands import build_concepts, extract
from pcm_plugin.engine.feature_checks import check_features
from pcm_plugin.formats.coco import write_coco_captions
from pcm_plugin.formats.concept_set import load_concepts
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.models import OpenCLIPBackbone
from pcm_plugin.models.backbones.clip_weights import load_clip, save_clip_folder
from pcm_plugin.models.backbones.torchscript_archive import read_torchscript
from pcm_plugin.models.backbones.weights_file import weights_identity
from pcm_plugin.synthesis.extract.settings import ExtractSettings

CONFIG = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "patch_size": 4, "width": 16, "head_width": 8, "layers": 2},
    "text_cfg": {
        "context_length": 12,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 1,
    },
}
IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", autouse=True)
def tiny_architectures(tmp_path_factory):
    """Register ``tiny`` and ``tiny-quickgelu`` with open_clip, like ``ViT-B-32``."""
    folder = tmp_path_factory.mktemp("architectures")
    (folder / "tiny.json").write_text(json.dumps(CONFIG))
    (folder / "tiny-quickgelu.json").write_text(json.dumps(CONFIG | {"quick_gelu": True}))
    (folder / "lonely.json").write_text(json.dumps(CONFIG))  # without a sibling
    open_clip.add_model_config(folder)
    yield
    from open_clip import factory

    factory._MODEL_CONFIG_PATHS.remove(folder)
    for name in ("tiny", "tiny-quickgelu", "lonely"):
        del factory._MODEL_CONFIGS[name]


def build(quick_gelu):
    torch.manual_seed(0)
    clip = open_clip.CLIP(**CONFIG, quick_gelu=quick_gelu).eval()
    with torch.no_grad():  # with initial weights the activations hardly differ
        for name, value in clip.named_parameters():
            if "mlp.c_fc" in name:
                value.normal_()
            if "mlp.c_proj" in name:
                value.mul_(100)
    return clip


def save_openai(path, quick_gelu=True):
    """Write a file in OpenAI's format: TorchScript, float16, with three sizes."""
    clip = build(quick_gelu)
    for key, size in (("input_resolution", 16), ("context_length", 12), ("vocab_size", 49408)):
        clip.__dict__.pop(key, None)
        clip.register_buffer(key, torch.tensor(size))
    inputs = (IMAGES, torch.zeros(2, 12, dtype=torch.long))
    torch.jit.trace(clip, inputs, check_trace=False).half().save(path)
    return str(path)


def features(clip, text=True):
    tokens = open_clip.get_tokenizer("tiny")(["a dog", "two cats"])
    with torch.no_grad():
        return clip.eval().encode_image(IMAGES), clip.encode_text(tokens)


def assert_features(clip, quick_gelu, half=False):
    """Check that a CLIP is that of ``build`` with this activation."""
    expected, other = build(quick_gelu), build(not quick_gelu)
    if half:
        expected, other = expected.half().float(), other.half().float()
    for found, right, wrong in zip(
        features(clip), features(expected), features(other), strict=True
    ):
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(found, wrong, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_openais_file_is_read_without_running_its_code(tmp_path, monkeypatch, quick_gelu):
    file = save_openai(tmp_path / "ViT.pt", quick_gelu)
    expected = torch.jit.load(file).state_dict()
    monkeypatch.setattr(torch.jit, "load", None)
    monkeypatch.setattr(torch._C, "import_ir_module", None)
    found = read_torchscript(file).tensors
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key
    right, wrong = "tiny-quickgelu", "tiny-gelu"
    if not quick_gelu:
        right, wrong = wrong, right
    for name in (right, "tiny") if not quick_gelu else (right,):
        backbone = OpenCLIPBackbone(name, file)
        assert_features(backbone.clip, quick_gelu, half=True)
        assert backbone.preprocess.transforms[-1].mean == open_clip.OPENAI_DATASET_MEAN
    for name in (wrong, "tiny") if quick_gelu else (wrong,):
        with pytest.raises(ValueError, match=rf"the model name must be '{right}' .* got `{name}`"):
            OpenCLIPBackbone(name, file)


FORMS = {
    "weights.safetensors": lambda clip, path: save_file(clip.state_dict(), path),
    "weights.pt": lambda clip, path: torch.save(clip.state_dict(), path),
    "old.pth": lambda clip, path: torch.save(
        clip.state_dict(), path, _use_new_zipfile_serialization=False
    ),
    "epoch_3.pt": lambda clip, path: torch.save(
        {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in clip.state_dict().items()}}, path
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("quick_gelu", [True, False])
def test_the_name_must_state_the_activation_if_the_file_does_not(tmp_path, form, quick_gelu):
    file = tmp_path / form
    FORMS[form](build(quick_gelu), file)
    with pytest.raises(ValueError, match=r"must say the activation .*'tiny-quickgelu'.*tiny-gelu"):
        OpenCLIPBackbone("tiny", str(file))
    name = "tiny-quickgelu" if quick_gelu else "tiny-gelu"
    backbone = OpenCLIPBackbone(name, str(file))
    assert_features(backbone.clip, quick_gelu)
    assert backbone.encode_text(["a dog"]).shape == (1, 8)
    # Architectures with one variant in open_clip have one activation.
    assert OpenCLIPBackbone("lonely", str(file)).model_name == "lonely"


def test_weights_of_openais_code_show_their_activation(tmp_path):
    file = tmp_path / "weights.pt"
    state = torch.jit.load(save_openai(tmp_path / "ViT.pt")).state_dict()
    torch.save(dict(state), file)
    with pytest.raises(ValueError, match="the model name must be 'tiny-quickgelu'"):
        load_clip("tiny", str(file))
    assert_features(load_clip("tiny-quickgelu", str(file))[0], True, half=True)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def rewrite(source, target, edit):
    """Copy a TorchScript archive with another ``data.pkl``."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(entry, edit(data) if entry.filename.endswith("/data.pkl") else data)
    return str(target)


def test_code_in_a_weights_file_is_not_run(tmp_path):
    ran = tmp_path / "ran"
    openai = save_openai(tmp_path / "ViT.pt")
    pickled = pickle.dumps(Evil(ran), protocol=2)
    evil = rewrite(openai, tmp_path / "evil.pt", lambda _: pickled)
    with pytest.raises(ValueError, match=r"evil\.pt cannot be read .*asks for"):
        load_clip("tiny-quickgelu", evil)
    (tmp_path / "pickle.pt").write_bytes(pickled)
    torch.save({"state_dict": build(True).state_dict(), "x": Evil(ran)}, tmp_path / "more.pt")
    for name in ("pickle.pt", "more.pt"):
        with pytest.raises(ValueError, match=r"read safely.*pass weights as \.safetensors"):
            load_clip("tiny-quickgelu", str(tmp_path / name))
    assert not ran.exists()


def test_a_tensor_must_lie_within_its_storage(tmp_path):
    openai = save_openai(tmp_path / "ViT.pt")
    # The first tensor is (12, 16), of 192 values.
    size, more = b"(K\x0cK\x10t", b"(K\x0dK\x10t"
    wide = rewrite(openai, tmp_path / "wide.pt", lambda data: data.replace(size, more, 1))
    with pytest.raises(ValueError, match="out of bounds"):
        load_clip("tiny-quickgelu", wide)
    count, more = b"K\xc0tQ", b"K\xc1tQ"
    long = rewrite(openai, tmp_path / "long.pt", lambda data: data.replace(count, more, 1))
    with pytest.raises(ValueError, match="size"):
        load_clip("tiny-quickgelu", long)


def test_errors_name_the_file_and_the_fix(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a weights file, got `nowhere\.pt`"):
        load_clip("ViT-B-32", "nowhere.pt")
    openai = save_openai(tmp_path / "ViT.pt")
    data = Path(openai).read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
    (tmp_path / "page.pt").write_text("<html>404</html>")
    (tmp_path / "page.safetensors").write_text("<html>404</html>")
    (tmp_path / "empty.pt").touch()
    buffer = io.BytesIO()
    torch.save([1, 2], buffer)
    (tmp_path / "list.pt").write_bytes(buffer.getvalue())
    for name in ("cut.pt", "page.pt", "page.safetensors", "empty.pt", "list.pt"):
        with pytest.raises(ValueError, match=name):
            load_clip("tiny-quickgelu", str(tmp_path / name))
    hub = {"vision_model.post_layernorm.weight": torch.ones(2)}
    save_file(hub, tmp_path / "hub.safetensors")
    with pytest.raises(ValueError, match="in the format of transformers"):
        load_clip("tiny-quickgelu", str(tmp_path / "hub.safetensors"))
    torch.save(build(True).state_dict(), tmp_path / "weights.pt")
    plain = save_openai(tmp_path / "plain.pt", quick_gelu=False)
    for file in (plain, str(tmp_path / "weights.pt")):
        with pytest.raises(ValueError, match="do not fit ViT-S-32-alt"):
            load_clip("ViT-S-32-alt", file)
    with pytest.raises(ValueError, match=r'has `ViT-S-32-alt` with .*"quick_gelu": true'):
        load_clip("ViT-S-32-alt", openai)
    with pytest.raises(ValueError, match="fits architectures such as"):
        load_clip("ViT-B-16-SigLIP", plain)
    save_clip_folder(tmp_path / "folder", "tiny-quickgelu", openai)
    with pytest.raises(ValueError, match="`pretrained` must be None for model_name='local-dir:"):
        load_clip(f"local-dir:{tmp_path / 'folder'}", openai)


def test_a_folder_written_from_a_file_keeps_the_activation(tmp_path):
    openai = save_openai(tmp_path / "ViT.pt")
    save_clip_folder(tmp_path / "clip", "tiny-quickgelu", openai)
    backbone = OpenCLIPBackbone(f"local-dir:{tmp_path / 'clip'}")
    assert_features(backbone.clip, True, half=True)
    assert backbone.encode_text(["a dog"]).shape == (1, 8)
    before = OpenCLIPBackbone("tiny-quickgelu", openai).preprocess
    clip = Image.effect_noise((40, 30), 90).convert("RGB")
    assert torch.equal(backbone.preprocess(clip), before(clip))


def test_weights_files_are_identified_by_their_content(tmp_path, monkeypatch):
    for name in ("one.safetensors", "two.safetensors"):
        save_file(build(True).state_dict(), tmp_path / name)
    save_file(build(True).half().state_dict(), tmp_path / "other.safetensors")
    one, two, other = (
        ExtractSettings("tiny-quickgelu", str(tmp_path / f"{name}.safetensors")).as_record()
        for name in ("one", "two", "other")
    )
    assert one == two != other
    assert str(tmp_path) not in json.dumps(one)
    assert weights_identity("openai") == "openai"
    assert weights_identity(None) is None
    # A file with the name of a tag is a file.
    monkeypatch.chdir(tmp_path)
    save_file(build(True).state_dict(), "openai")
    assert weights_identity("openai") == weights_identity("one.safetensors")


def test_commands_accept_openais_file_and_record_its_hash(tmp_path, monkeypatch):
    openai = save_openai(tmp_path / "ViT.pt")
    images = tmp_path / "images"
    images.mkdir()
    for i in range(2):
        Image.effect_noise((20, 16), 90).convert("RGB").save(images / f"{i}.png")
    entries = [(i, f"{i}.png", ["a dog runs"]) for i in range(2)]
    write_coco_captions(tmp_path / "captions.json", entries)
    (tmp_path / "words.txt").write_text("dog\ncat\n")

    def call(tool, *args):
        monkeypatch.setattr(sys, "argv", ["tool", *map(str, args), "--pretrained", openai])
        tool.main()

    extract_args = (images, "--captions", tmp_path / "captions.json", "--device", "cpu")
    with pytest.raises(SystemExit, match="the model name must be 'tiny-quickgelu'"):
        call(extract, *extract_args, "--model", "tiny", "--out", tmp_path / "store")
    call(extract, *extract_args, "--model", "tiny-quickgelu", "--out", tmp_path / "store")
    concepts = tmp_path / "concepts.safetensors"
    call(build_concepts, tmp_path / "words.txt", "--model", "tiny-quickgelu", "--out", concepts)
    made_with = FeatureStore(tmp_path / "store").settings
    named = load_concepts(concepts)
    assert made_with["pretrained"] == named.pretrained == weights_identity(openai)
    assert made_with["model"] == named.model == "tiny-quickgelu"
    neck = {"type": "pcm_plugin.PCMMixup", "concepts": str(concepts)}
    cfg = Config({"model": {"type": "pcm_plugin.PCMNet", "neck": neck}})
    dataset = {"type": "pcm_plugin.SynthCaptionDataset", "store": str(tmp_path / "store")}
    cfg.test_dataloader = {"dataset": dataset}
    backbone = {"type": "pcm_plugin.OpenCLIPBackbone", "model_name": "tiny-quickgelu"}
    cfg.model.backbone = backbone | {"pretrained": openai}
    check_features(cfg, ["test"])
    cfg.model.backbone.pretrained = "openai"
    with pytest.raises(ValueError, match="must come from one CLIP"):
        check_features(cfg, ["test"])
