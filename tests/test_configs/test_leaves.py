import re
from functools import reduce

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS
from mmengine.runner import Runner

from pcm_plugin.commands.build_commands import build_command, check_inputs
from pcm_plugin.engine.config_files import find_config, list_configs
from pcm_plugin.engine.config_modules import list_input_files
from pcm_plugin.engine.inputs import HUB_KINDS
from pcm_plugin.errors import MissingFileError
from pcm_plugin.formats.required_file import FileKind
from pcm_plugin.formats.vocabulary import Vocabulary
from tests.configs import read_commands
from tests.mmpretrain_models import skip_without_models_of

# Data sets inherit the custom ones: tests/test_synthesis/test_dataset.py and test_text_dataset.py.
ALL = sorted(name for name in list_configs() if "_custom" not in name)
# mmpretrain's captioners: test_blip.py.
LEAVES = [name for name in ALL if not name.startswith("pcm_blip")]
PUBLISHED = ["pcm_coco", "pcm_coco_vitl14", "pcm_flickr30k", "pcm_flickr30k_vitl14"]

# Settings of all released configs; those that differ are in WITH_CLIP and DROPOUT.
RELEASED = {
    "model.neck.embed_dims": 512,
    "model.neck.top_concepts": 5,
    "model.neck.num_pairs": 5,
    "model.neck.concept_threshold": 0.0,
    "model.neck.temperature": 0.01,
    "model.neck.noise_var": 0.016,
    "model.neck.dropout": 0.5,
    **{f"model.{part}.embed_dims": 512 for part in ("encoder", "decoder")},
    **{f"model.{part}.num_layers": 3 for part in ("encoder", "decoder")},
    **{f"model.{part}.num_heads": 8 for part in ("encoder", "decoder")},
    **{f"model.{part}.ffn_dims": 2048 for part in ("encoder", "decoder")},
    **{f"model.{part}.attn_dropout": 0.3 for part in ("encoder", "decoder")},
    "model.decoder.embed_dropout": 0.1,
    "model.decoder.output_dropout": 0.5,
    "model.loss.label_smoothing": 0.1,
    "model.loss.gamma": 2,
    "model.loss.gamma_type": "batch",
    "model.decoding.beam_size": 3,
    "model.decoding.max_len": 20,
    "optim_wrapper.optimizer": dict(
        type="Adam", lr=1.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, fused=True
    ),
    "optim_wrapper.clip_grad": dict(type="value", clip_value=0.1),
    "param_scheduler.embed_dims": 512,
    "param_scheduler.warmup": 10_000,
    "train_dataloader.batch_size": 32,
    "auto_scale_lr.base_batch_size": 32,
    "train_cfg.max_epochs": 12,
    "randomness.seed": 1234,
    # Not released, but ours: checkpoints are chosen by CIDEr on validation.
    "default_hooks.checkpoint.save_best": "caption/CIDEr",
    "default_hooks.checkpoint.rule": "greater",
}
WITH_CLIP = {
    "model.neck.patch_dim": (768, 1024),
    "model.neck.clip_dim": (512, 768),
    "model.neck.num_patches": (49, 64),
    "model.loss.clip_weight": (2.5, 4.0),
    "clip.model_name": ("ViT-B-32-quickgelu", "ViT-L-14-quickgelu"),
    "clip.pretrained": ("openai", "openai"),
    "clip.pool": (1, 2),
}
DROPOUT = {name: 0.25 if name == "pcm_coco_vitl14" else 0.2 for name in PUBLISHED}


@pytest.fixture
def load(write_inputs):
    """Function that reads a config and replaces its inputs by tiny ones of the right widths."""

    def load(name):
        cfg = Config.fromfile(find_config(name))
        cfg.merge_from_dict(write_inputs(cfg))
        for loop in ("train", "val", "test"):
            cfg[f"{loop}_dataloader"].update(num_workers=0, persistent_workers=False, batch_size=12)
        return cfg

    return load


@pytest.mark.parametrize("name", LEAVES)
def test_steps_and_captions_at_full_size(name, load):
    cfg = load(name)
    cfg.model.decoding.max_len = 5
    model = MODELS.build(cfg.model)
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    is_noam = not isinstance(cfg.param_scheduler, list)
    schedule = cfg.param_scheduler if is_noam else cfg.param_scheduler[0]
    scheduler = PARAM_SCHEDULERS.build(schedule, default_args=dict(optimizer=optim_wrapper))
    before = {key: value.clone() for key, value in model.named_parameters()}
    batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
    losses = model.train_step(batch, optim_wrapper)
    scheduler.step()
    assert torch.isfinite(losses["loss"])
    moved = [key for key, value in model.named_parameters() if not torch.equal(value, before[key])]
    if cfg.model.type == "pcm_plugin.PrefixCaptioner":
        parts = {"neck", "mapper", "lm"} | ({"encoder"} if cfg.model.get("encoder") else set())
    else:
        parts = {"neck", "decoder"} | ({"encoder"} if cfg.model.encoder else set())
    assert {key.split(".")[0] for key in moved} == parts
    if is_noam:
        second = 2 * schedule.embed_dims**-0.5 * schedule.warmup**-1.5
    else:  # the warm-up of ViECap
        assert schedule.end == 5000
        second = schedule.start_factor + (1 - schedule.start_factor) / (schedule.end - 1)
    second *= cfg.optim_wrapper.optimizer.lr
    assert optim_wrapper.param_groups[0]["lr"] == pytest.approx(second)

    model.eval()
    for loop in ("val", "test"):
        batch = next(iter(Runner.build_dataloader(cfg[f"{loop}_dataloader"], seed=0)))
        samples = model.test_step(batch)
        assert all(isinstance(sample.pred_caption, str) for sample in samples)
        assert all(isinstance(sample.gt_caption, list) for sample in samples)


@pytest.mark.parametrize("name", PUBLISHED)
def test_hyper_parameters_are_the_released_ones(name):
    cfg = Config.fromfile(find_config(name))
    column = 1 if name.endswith("vitl14") else 0
    wanted = RELEASED | {key: values[column] for key, values in WITH_CLIP.items()}
    wanted |= {f"model.{part}.dropout": DROPOUT[name] for part in ("encoder", "decoder")}
    assert {key: reduce(lambda part, k: part[k], key.split("."), cfg) for key in wanted} == wanted
    files = [cfg[f"{loop}_dataloader"].dataset.store for loop in ("train", "val", "test")]
    files += [cfg.model.vocabulary, cfg.model.neck.concepts, cfg.model.neck.clip_head]
    assert len(set(files)) == len(files)
    dataset = name.removeprefix("pcm_").removesuffix("_vitl14")
    assert all(file.startswith(f"data/{dataset}/") for file in files)
    tower = "vit_l14" if column else "vit_b32"
    assert sum(tower in file for file in files) == len(files) - 1
    # Vocabulary and concepts are built like the released ones.
    with pytest.raises(MissingFileError) as caught:
        check_inputs(cfg, ["train", "val"])
    commands = dict(read_commands(str(caught.value)))
    assert "--split all --unk" in commands[cfg.model.vocabulary]
    assert "--templates simple" in commands[cfg.model.neck.concepts]
    assert "--split all" not in commands[cfg.train_dataloader.dataset.store]


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


def test_every_published_config_exists():
    assert set(PUBLISHED) < set(LEAVES)


@pytest.mark.parametrize("name", ALL)
def test_starts_with_the_command_that_trains_it(name):
    first = find_config(name).read_text().splitlines()[0]
    assert re.match(rf"# pcm train {find_config(name)}", first)


@pytest.mark.parametrize("name", ALL)
def test_each_input_has_a_command(name):
    skip_without_models_of(name)
    cfg = Config.fromfile(find_config(name))
    files = list_input_files(cfg)
    keys = [file.key for file in files]
    assert len(keys) == len(set(keys)) >= 4
    for file in files:  # tests/test_commands.py runs the commands through their parsers
        if file.kind not in (*HUB_KINDS, FileKind.IMAGE_FOLDER):
            assert build_command(cfg, file).startswith("pcm ")
