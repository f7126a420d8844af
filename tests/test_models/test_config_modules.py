from pathlib import Path

import pytest
from mmengine.config import Config

from pcm_plugin.formats.required_file import FileKind
from pcm_plugin.models import OpenCLIPBackbone, PCMMixup, PCMNet
from pcm_plugin.models.config_modules import iter_modules, required_files

CONFIGS = Path(__file__).parents[2] / "configs"


def test_modules_of_a_config_are_found_with_their_keys():
    model = {
        "type": "pcm_plugin.PCMNet",
        "neck": {"type": "PCMMixup", "_scope_": "pcm_plugin", "patch_dim": 8},
        "backbone": {"type": OpenCLIPBackbone, "model_name": "ViT-B-32"},
        "data_preprocessor": {"type": "BaseDataPreprocessor"},
        "decoding": {"beam_size": 2},
        "loss": {"type": "pcm_plugin.NoSuchLoss"},
    }
    modules = {module.key: module for module in iter_modules(model)}
    assert list(modules) == ["model", "model.neck", "model.backbone", "model.data_preprocessor"]
    assert modules["model"].cls is PCMNet
    assert modules["model.neck"].cls is PCMMixup
    assert modules["model.backbone"].settings["model_name"] == "ViT-B-32"


def test_files_that_are_none_or_missing_are_left_out():
    model = {
        "type": "pcm_plugin.PCMNet",
        "neck": {"type": "pcm_plugin.PCMMixup", "concepts": "c.safetensors", "clip_head": None},
        "vocabulary": Path("vocabulary.txt"),
    }
    assert required_files(model, "captioner") == [
        ("captioner.vocabulary", FileKind.VOCABULARY, "vocabulary.txt"),
        ("captioner.neck.concepts", FileKind.CONCEPT_SET, "c.safetensors"),
    ]


@pytest.mark.parametrize(
    "name", ["pcm_toy", "syntic/syntic_toy", "decap/decap_toy", "prefix/prefix_pcm_toy"]
)
def test_models_declare_every_file_that_their_config_requires(name):
    cfg = Config.fromfile(CONFIGS / f"{name}.py")
    declared = {file.key: file.path for file in required_files(cfg.model)}
    listed = {entry["key"] for entry in cfg.required_files if entry["key"].startswith("model.")}
    assert listed
    for key in listed:
        value = cfg
        for part in key.split("."):
            value = value.get(part) or {}
        assert declared.get(key) == (value or None), key
