"""tools/test.py."""

import json

import pytest
import torch
from mmengine.config import Config
from safetensors.torch import save_file

from pcm_plugin.registry import MODELS
from tests.test_tools.commands import run


@pytest.fixture
def checkpoint(tmp_path, tiny_settings):
    """Weights of an untrained model, as safetensors."""
    cfg = Config.fromfile("configs/pcm_coco.py")
    cfg.merge_from_dict(tiny_settings)
    torch.manual_seed(0)
    path = tmp_path / "weights.safetensors"
    save_file(MODELS.build(cfg.model).state_dict(), path)
    return path


def score(checkpoint, work_dir, settings, *args, log):
    options = [f"{key}={value}" for key, value in settings.items()]
    words = ["configs/pcm_coco.py", checkpoint, "--work-dir", work_dir, *args]
    return run("test.py", *words, "--cfg-options", *options, log=log)


@pytest.mark.parametrize("args", [(), ("--amp",)])
def test_scores_safetensors_and_writes_the_metrics(checkpoint, tmp_path, tiny_settings, args):
    result = score(checkpoint, tmp_path / "run", tiny_settings, *args, log=tmp_path / "log")
    assert result.code == 0, result.output
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert written["config"] == "configs/pcm_coco.py"
    assert written["checkpoint"] == str(checkpoint)
    assert {"caption/CIDEr", "caption/BLEU-4", "caption/ROUGE-L"} <= set(written["metrics"])
    assert f'"caption/CIDEr": {written["metrics"]["caption/CIDEr"]}' in result.output


def test_a_path_with_a_space_is_kept(checkpoint, tmp_path, tiny_settings):
    path = tmp_path / "my out, 2" / "captions.json"
    settings = {**tiny_settings, "test_evaluator.outfile": path}
    result = score(checkpoint, tmp_path / "my run", settings, log=tmp_path / "log")
    assert result.code == 0, result.output
    assert len(json.loads(path.read_text())) == 3


def test_weights_of_another_model_are_refused(checkpoint, tmp_path, tiny_settings):
    settings = {**tiny_settings, "model.encoder.num_layers": 2}
    result = score(checkpoint, tmp_path / "run", settings, log=tmp_path / "log")
    assert result.code == 1
    assert "weights.safetensors does not fit the model" in result.output
    assert "encoder." in result.output
    assert "Traceback" not in result.output


def test_missing_files_are_named(tmp_path, tiny_settings):
    result = score("none.pth", tmp_path / "run", tiny_settings, log=tmp_path / "log")
    assert (result.code, result.output) == (1, "checkpoint none.pth does not exist\n")
    settings = {**tiny_settings, "test_dataloader.dataset.store": "nowhere"}
    result = score("none.pth", tmp_path / "run", settings, log=tmp_path / "log")
    assert result.code == 1
    assert "missing: nowhere" in result.output
    assert "--captions data/coco/dataset_coco.json --split test" in result.output
    assert "train_store" not in result.output
