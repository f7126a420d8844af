import pytest
from mmengine.config import Config

from pcm_plugin.engine.config_checks import check_config, check_evaluators, disable_worker_options
from pcm_plugin.engine.config_files import find_config
from tests.mmpretrain_models import skip_without_models_of

CONFIG = "configs/pcm_coco.py"


def check(config=CONFIG, loops=("train", "val"), **settings):
    cfg = Config.fromfile(config)
    cfg.merge_from_dict({key.replace("__", "."): value for key, value in settings.items()})
    check_config(cfg, loops)
    check_evaluators(cfg, loops)


@pytest.mark.parametrize(
    "name", ["pcm_coco", "prefix_coco", "syntic_flickr30k", "pcm_toy", "pcm_blip_coco"]
)
def test_our_configs_pass(name):
    skip_without_models_of(name)
    check(find_config(name), ("train", "val", "test"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train_dataloader__batch_size", 0, "must be a whole number of at least 1, got 0"),
        ("train_dataloader__batch_size", "32", "must be a whole number of at least 1, got '32'"),
        ("val_dataloader__num_workers", -1, "must be a whole number of at least 0, got -1"),
        ("train_dataloader__drop_last", "yes", "must be True or False, got 'yes'"),
        ("train_dataloader__prefetch_factor", 0, "must be a positive whole number or None, got 0"),
        ("train_dataloader__dataset__store", 2024, "must be a path; write ./NAME"),
        ("train_dataloader__dataset__max_pair", 1, "did you mean `max_pairs`?"),
        ("train_dataloader__sampler__shufle", True, "did you mean `shuffle`?"),
        ("train_cfg__max_epochs", 0, "must be a positive whole number, got 0"),
        ("train_cfg__max_epochs", 1.5, "must be a positive whole number, got 1.5"),
        ("train_cfg__max_epoch", 3, "did you mean `max_epochs`?"),
        ("train_cfg__val_interval", 0, "must be a positive number, got 0"),
        ("train_cfg__val_begin", 13, "must be a whole number from 0 to max_epochs=12, got 13"),
        ("optim_wrapper__optimizer__lr", -1.0, "must be a positive number, got -1.0"),
        ("optim_wrapper__optimizer__lr", "fast", "must be a positive number, got 'fast'"),
        ("optim_wrapper__optimizer__learning_rate", 1.0, "Adam has no such argument"),
        ("optim_wrapper__optimizer__type", "Adan", "'Adan' is not registered; did you mean `Adam`"),
        ("optim_wrapper__accumulative_counts", 0, "must be a positive whole number, got 0"),
        ("param_scheduler__warmup", -5, "must be a positive whole number, got -5"),
        ("param_scheduler__warm_up", 5, "NoamLR has no such argument; did you mean `warmup`?"),
        ("auto_scale_lr__base_batch_size", 0, "must be a positive whole number, got 0"),
        ("model__neck__top_concept", 5, "did you mean `top_concepts`?"),
        ("model__decoding__beam_sise", 5, "did you mean `beam_size`?"),
        ("default_hooks__logger__intervall", 5, "did you mean `interval`?"),
        ("default_hooks__average__epochs", 0, "must be a positive number, got 0"),
        ("default_hooks__average__epochs", "two", "must be a positive number, got 'two'"),
        ("randomness__seed", "x", "must be a whole number from 0 on, or None, got 'x'"),
        ("load_from", "nowhere.pth", "load_from='nowhere.pth': this file does not exist"),
        ("val_evaluator__scorer", ["CIDEr"], "did you mean `scorers`?"),
        ("val_evaluator__scorers", ["CIDEr-X"], "CIDEr-X"),
        ("val_evaluator__scorers", ["BLEU"], "does not compute it; add CIDEr"),
    ],
)
def test_an_invalid_setting_is_reported(key, value, message):
    with pytest.raises(ValueError, match="settings that cannot work") as caught:
        check(**{key: value})
    parts = key.split("__")
    assert parts[0] in str(caught.value)
    assert parts[-1] in str(caught.value)
    assert message in str(caught.value)


def test_all_problems_are_listed_at_once():
    with pytest.raises(ValueError, match="batch_size") as caught:
        check(train_dataloader__batch_size=0, train_cfg__max_epochs=0)
    assert len(str(caught.value).splitlines()) == 3


def test_a_loop_that_does_not_run_is_not_checked():
    check(loops=["test"], train_cfg__max_epochs=0)


def test_worker_options_are_removed_without_workers():
    cfg = Config.fromfile(CONFIG)
    cfg.train_dataloader.update(num_workers=0, prefetch_factor=4)
    disable_worker_options(cfg)
    assert cfg.train_dataloader.persistent_workers is False
    assert "prefetch_factor" not in cfg.train_dataloader
    assert cfg.val_dataloader.persistent_workers is True
