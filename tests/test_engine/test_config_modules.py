import pytest
from mmengine.config import Config

from pcm_plugin.engine.config_modules import iter_modules, list_input_files
from pcm_plugin.errors import UserError
from pcm_plugin.formats.required_file import FileKind
from pcm_plugin.models import OpenCLIPBackbone, PCMMixup, PCMNet


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


def test_files_are_listed_with_key_and_kind():
    cfg = Config(
        {
            "model": {
                "type": "pcm_plugin.PCMNet",
                "neck": {
                    "type": "pcm_plugin.PCMMixup",
                    "concepts": "c.safetensors",
                    "clip_head": None,
                },
                "vocabulary": "vocabulary.txt",
            },
            "val_dataloader": {
                "dataset": {
                    "type": "RepeatDataset",
                    "dataset": {"type": "pcm_plugin.SynthCaptionDataset", "store": "val"},
                }
            },
            "val_evaluator": [{"type": "pcm_plugin.CaptionMetric", "groups": "g.json"}],
            "train_dataloader": {"dataset": {"type": "MyDataset", "store": "not declared"}},
        }
    )
    model = [
        ("model.vocabulary", FileKind.VOCABULARY, "vocabulary.txt"),
        ("model.neck.concepts", FileKind.CONCEPT_SET, "c.safetensors"),
    ]
    assert list_input_files(cfg, ["train"]) == model
    assert list_input_files(cfg) == [
        *model,
        ("val_dataloader.dataset.dataset.store", FileKind.FEATURE_STORE, "val"),
        ("val_evaluator.0.groups", FileKind.GROUPS, "g.json"),
    ]


def test_a_config_may_list_files_of_other_classes():
    cfg = Config(
        {
            "model": {"type": "Other", "tokenizer": {"name_or_path": "bert"}},
            "required_files": [{"key": "model.tokenizer.name_or_path", "kind": "TOKENIZER"}],
        }
    )
    expected = ("model.tokenizer.name_or_path", FileKind.TOKENIZER, "bert")
    assert list_input_files(cfg) == [expected]
    cfg.required_files[0].key = "model.tokeniser.path"
    with pytest.raises(UserError, match=r"names 'model.tokeniser.path', but .* no 'tokeniser'"):
        list_input_files(cfg)
