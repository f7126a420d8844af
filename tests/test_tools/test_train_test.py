"""Command pcm test."""

import json
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from safetensors.torch import save_file

from pcm_plugin.commands.runs import read_config
from pcm_plugin.registry import MODELS
from tests.builders import build_store
from tests.test_tools.commands import run


@pytest.fixture
def checkpoint(tmp_path, tiny_settings):
    """Write the weights of an untrained model as safetensors."""
    cfg = Config.fromfile("configs/pcm_coco.py")
    cfg.merge_from_dict(tiny_settings)
    torch.manual_seed(0)
    path = tmp_path / "weights.safetensors"
    save_file(MODELS.build(cfg.model).state_dict(), path)
    return path


def score(checkpoint, work_dir, settings, *args, log):
    options = [f"{key}={value}" for key, value in settings.items()]
    words = ["configs/pcm_coco.py", checkpoint, "--work-dir", work_dir, *args]
    return run("test", *words, "--cfg-options", *options, log=log)


@pytest.mark.parametrize("args", [(), ("--amp",)])
def test_scores_safetensors_and_writes_the_metrics(checkpoint, tmp_path, tiny_settings, args):
    result = score(checkpoint, tmp_path / "run", tiny_settings, *args, log=tmp_path / "log")
    assert result.code == 0, result.output
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert written["config"] == "configs/pcm_coco.py"
    assert written["checkpoint"] == str(checkpoint)
    assert {"caption/CIDEr", "caption/BLEU-4", "caption/ROUGE-L"} <= set(written["metrics"])
    assert f'"caption/CIDEr": {written["metrics"]["caption/CIDEr"]}' in result.output


def test_the_data_set_of_eval_on_is_recorded(checkpoint, tmp_path, tiny_settings):
    # Options are applied last: the tiny test images replace those of Flickr30k.
    words = ("--eval-on", "flickr30k")
    result = score(checkpoint, tmp_path / "run", tiny_settings, *words, log=tmp_path / "log")
    assert result.code == 0, result.output
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["eval_on"] == "flickr30k"
    options = [f"{key}={value}" for key, value in tiny_settings.items()]
    cfg = read_config(Path("configs/pcm_coco.py"), options, ("test",), "flickr30k")
    assert cfg.work_dir == "work_dirs/pcm_coco/test/flickr30k"
    assert cfg.extra_datasets[0].root == "data/flickr30k"
    words = ("--eval-on", "vizwiz")
    result = score(checkpoint, tmp_path / "run", tiny_settings, *words, log=tmp_path / "log")
    assert result.code == 2
    assert re.search(r"--eval-on: invalid choice: 'vizwiz' .*coco.*flickr30k_tt", result.output)


def test_a_path_with_a_space_is_kept(checkpoint, tmp_path, tiny_settings):
    path = tmp_path / "my out, 2" / "captions.json"
    settings = {**tiny_settings, "test_evaluator.outfile": path}
    result = score(checkpoint, tmp_path / "my run", settings, log=tmp_path / "log")
    assert result.code == 0, result.output
    assert len(json.loads(path.read_text())) == 3


def test_weights_of_another_model_are_rejected(checkpoint, tmp_path, tiny_settings):
    settings = {**tiny_settings, "model.encoder.num_layers": 2}
    result = score(checkpoint, tmp_path / "run", settings, log=tmp_path / "log")
    assert result.code == 1
    assert "weights.safetensors does not fit the model" in result.output
    assert "encoder." in result.output
    assert "Traceback" not in result.output


def test_missing_files_are_reported(tmp_path, tiny_settings):
    result = score("none.pth", tmp_path / "run", tiny_settings, log=tmp_path / "log")
    assert (result.code, result.output) == (1, "checkpoint none.pth does not exist\n")
    settings = {**tiny_settings, "test_dataloader.dataset.store": "nowhere"}
    result = score("none.pth", tmp_path / "run", settings, log=tmp_path / "log")
    assert result.code == 1
    assert "missing: nowhere" in result.output
    assert "--captions data/coco/dataset_coco.json --split test" in result.output
    assert "train_store" not in result.output


def test_images_without_references_are_rejected_before_the_run(checkpoint, tmp_path, tiny_settings):
    sizes = {"patch_dim": 12, "clip_dim": 8}
    build_store(tmp_path / "store", [[], [], []], **sizes)
    settings = {**tiny_settings, "test_dataloader.dataset.store": tmp_path / "store"}
    result = score(checkpoint, tmp_path / "run", settings, log=tmp_path / "log")
    assert result.code == 1
    assert "no image has a reference: 'image0', 'image1', 'image2'" in result.output
    assert "Traceback" not in result.output
    assert "Epoch(test)" not in result.output
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_references_of_other_images_are_rejected_before_the_run(
    checkpoint, tmp_path, tiny_settings
):
    rows = [{"id": n, "image_id": f"image{n}", "caption": f"a number {n}"} for n in range(2, 5)]
    file = tmp_path / "references.json"
    file.write_text(json.dumps({"annotations": rows}))
    settings = {**tiny_settings, "test_evaluator.ann_file": file}
    result = score(checkpoint, tmp_path / "run", settings, log=tmp_path / "log")
    assert result.code == 1
    assert "2 images of" in result.output
    assert "have no caption: 'image3', 'image4'; set partial=True" in result.output
    assert "Epoch(test)" not in result.output
    settings["test_evaluator.partial"] = True
    result = score(checkpoint, tmp_path / "run", settings, log=tmp_path / "log")
    assert result.code == 0, result.output
    # CIDEr of the single remaining image is undefined, which is null in JSON.
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics"]
    assert written["caption/CIDEr"] is None
    assert written["caption/BLEU-1"] >= 0


def test_one_scorer_need_not_be_a_list(checkpoint, tmp_path, tiny_settings):
    settings = {**tiny_settings, "test_evaluator.scorers": "CIDEr"}
    result = score(checkpoint, tmp_path / "run", settings, log=tmp_path / "log")
    assert result.code == 0, result.output
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics"]
    assert {*written} == {"caption/CIDEr", "caption/CIDEr-D"}
    settings["test_evaluator.scorers"] = "Cider"
    result = score(checkpoint, tmp_path / "run", settings, log=tmp_path / "log")
    assert result.code == 1
    assert "`scorers` must be a list of 'BLEU', 'ROUGE-L', 'CIDEr'" in result.output
    assert "got ['Cider']" in result.output
    assert "Traceback" not in result.output
