import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS
from mmengine.runner import Runner

from pcm_plugin.datasets.vocabulary import Vocabulary

LEAVES = sorted(path.stem for path in Path("configs").glob("*.py"))


@pytest.fixture
def load(write_inputs):
    """A function that reads a leaf, its inputs replaced by tiny ones of the right widths."""

    def load(name):
        cfg = Config.fromfile(f"configs/{name}.py")
        cfg.merge_from_dict(write_inputs(cfg))
        for loop in ("train", "val", "test"):
            cfg[f"{loop}_dataloader"].update(num_workers=0, persistent_workers=False, batch_size=12)
        return cfg

    return load


@pytest.mark.parametrize("name", LEAVES)
def test_steps_and_captions_at_full_size(name, load):
    cfg = load(name)
    cfg.model.max_len = 5
    model = MODELS.build(cfg.model)
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    scheduler = PARAM_SCHEDULERS.build(
        cfg.param_scheduler, default_args=dict(optimizer=optim_wrapper)
    )
    before = {key: value.clone() for key, value in model.named_parameters()}
    batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
    losses = model.train_step(batch, optim_wrapper)
    scheduler.step()
    assert torch.isfinite(losses["loss"])
    moved = [key for key, value in model.named_parameters() if not torch.equal(value, before[key])]
    assert {key.split(".")[0] for key in moved} == {"neck", "encoder", "decoder"}
    schedule = cfg.param_scheduler
    second = 2 * schedule.embed_dims**-0.5 * schedule.warmup**-1.5 * cfg.optim_wrapper.optimizer.lr
    assert optim_wrapper.param_groups[0]["lr"] == pytest.approx(second)

    model.eval()
    for loop in ("val", "test"):
        batch = next(iter(Runner.build_dataloader(cfg[f"{loop}_dataloader"], seed=0)))
        samples = model.test_step(batch)
        assert all(isinstance(sample.pred_caption, str) for sample in samples)
        assert all(isinstance(sample.gt_caption, list) for sample in samples)


def test_gradients_are_clipped_by_value():
    cfg = Config.fromfile("configs/pcm_coco.py")
    model = torch.nn.Linear(2, 1, bias=False)
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    seen = []
    optim_wrapper.optimizer.register_step_pre_hook(
        lambda *_: seen.append(model.weight.grad.clone())
    )
    optim_wrapper.update_params(model(torch.tensor([[0.05, -7.0]])).sum())
    torch.testing.assert_close(seen, [torch.tensor([[0.05, -0.1]])])


def test_coco_has_the_released_size(load, tmp_path):
    cfg = load("pcm_coco")
    cfg.model.vocabulary = str(tmp_path / "vocabulary.txt")
    Vocabulary([f"word{i}" for i in range(10_199)]).to_file(cfg.model.vocabulary)
    model = MODELS.build(cfg.model)
    # With CLIP's frozen head, as the released model counts it.
    size = sum(value.numel() for value in model.state_dict().values())
    assert size == pytest.approx(34.9e6, abs=0.05e6)


def test_every_published_configuration_is_there():
    published = {"pcm_coco", "pcm_coco_vitl14", "pcm_flickr30k", "pcm_flickr30k_vitl14"}
    assert published < set(LEAVES)


@pytest.mark.parametrize("name", LEAVES)
def test_opens_with_the_command_that_runs_it(name):
    first = Path(f"configs/{name}.py").read_text().splitlines()[0]
    assert re.match(rf"# python tools/(train|test)\.py configs/{name}\.py", first)


@pytest.mark.parametrize("name", LEAVES)
def test_each_input_has_a_command_that_exists(name):
    cfg = Config.fromfile(f"configs/{name}.py")
    keys = [entry["key"] for entry in cfg.prerequisites]
    assert len(keys) == len(set(keys)) >= 4
    for entry in cfg.prerequisites:
        if entry["command"] == "make demo":
            continue
        for command in entry["command"].split("&&"):
            python, tool = command.split()[:2]
            assert python == "python"
            assert Path(tool).is_file()
