import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

from pcm_plugin.engine.config_files import find_config, list_configs
from pcm_plugin.engine.noam import noam_factor
from pcm_plugin.engine.schedules import (
    RunLength,
    check_schedule,
    is_replayable,
    replay,
    run_length,
    scale_to_batch,
)
from tests.mmpretrain_models import skip_without_models_of

TRAINED = [
    name
    for name, path in list_configs().items()
    if path.read_text().startswith(f"# pcm train {path}")
]


def rates_of(cfg, length):
    base = [cfg.optim_wrapper.optimizer.lr]
    return replay(cfg, length, base, length.max_iters).rates


def make(schedule, epochs=4, lr=1.0, **more):
    return Config(
        dict(
            optim_wrapper=dict(optimizer=dict(type="SGD", lr=lr)),
            param_scheduler=schedule,
            train_cfg=dict(max_epochs=epochs),
            **more,
        )
    )


@pytest.mark.parametrize("name", TRAINED)
def test_a_schedule_follows_the_length_of_its_run(name):
    skip_without_models_of(name)
    cfg = Config.fromfile(find_config(name))
    cfg.train_cfg.max_epochs *= 2
    length = run_length(cfg, 500)
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope")):
        assert check_schedule(cfg, length) == []
        rates = rates_of(cfg, length)
    # A decay to 0 reaches it at the end of the run, neither before nor after.
    assert (rates[:-1] > 0).all()
    if any(kind in str(cfg.param_scheduler) for kind in ("LinearLR", "Cosine")):
        assert rates[-1] < 0.05 * rates.max()


def test_a_replay_has_the_rates_of_the_schedule():
    cfg = Config.fromfile("configs/pcm_coco.py")
    rates = rates_of(cfg, RunLength(7, 30, None))
    wanted = [noam_factor(step, 512, 10_000) for step in range(1, 31)]
    np.testing.assert_allclose(rates, wanted, rtol=1e-12)
    by_epoch = make(dict(type="StepLR", step_size=2, gamma=0.1, by_epoch=True))
    rates = rates_of(by_epoch, run_length(by_epoch, 3))
    np.testing.assert_allclose(rates, [1.0] * 6 + [0.1] * 6)


def test_a_rate_of_zero_is_rejected():
    schedule = dict(type="LinearLR", start_factor=1.0, end_factor=0.0, by_epoch=True, end=3)
    cfg = make(schedule | {"convert_to_iter_based": True}, epochs=8)
    with pytest.raises(ValueError, match=r"0 from iteration 30 on.*train_cfg.max_epochs=8.*`end`"):
        check_schedule(cfg, run_length(cfg, 10))
    cfg.train_cfg.max_epochs = 3
    assert check_schedule(cfg, run_length(cfg, 10)) == []


def test_a_warm_up_longer_than_the_run_is_reported():
    cfg = make(dict(type="pcm_plugin.NoamLR", by_epoch=False, warmup=100))
    (warning,) = check_schedule(cfg, run_length(cfg, 5))
    assert "still rises when the run ends after 20 iterations" in warning
    assert check_schedule(cfg, run_length(cfg, 50)) == []


@pytest.mark.parametrize(
    "schedule",
    [
        dict(type="LinearLR", start_factor=2.0, by_epoch=False),
        dict(type="CosineAnnealingLR", by_epoch=True, begin=3, end=2),
        dict(type="pcm_plugin.NoamLR", warmup=10),
    ],
)
def test_a_scheduler_that_cannot_be_built_is_a_user_error(schedule):
    cfg = make(schedule)
    with pytest.raises(ValueError, match="param_scheduler of type"):
        check_schedule(cfg, run_length(cfg, 5))


def test_an_accumulation_beyond_the_end_of_an_epoch_is_reported():
    cfg = make(None)
    cfg.optim_wrapper.accumulative_counts = 4
    assert check_schedule(cfg, run_length(cfg, 8)) == []
    (warning,) = check_schedule(cfg, run_length(cfg, 10))
    assert "accumulative_counts=4: a run cannot be resumed" in warning


@pytest.mark.parametrize(
    "changes",
    [
        {"optim_wrapper.optimizer.momentum": -1.0},
        {"optim_wrapper.optimizer": dict(type="Adam", lr=1.0, betas=0.9)},
        {"optim_wrapper.clip_grad": dict(type="valu", clip_value=0.1)},
        {"optim_wrapper.clip_grad": 0.1},
    ],
)
def test_an_optimizer_that_cannot_be_built_is_a_user_error(changes):
    cfg = make(None)
    cfg.merge_from_dict(changes)
    with pytest.raises(ValueError, match=r"^optim_wrapper: "):
        check_schedule(cfg, run_length(cfg, 5))


def test_schedules_that_depend_on_metrics_are_not_replayed():
    assert not is_replayable(make(dict(type="ReduceOnPlateauLR", monitor="loss")))
    assert is_replayable(make(dict(type="pcm_plugin.NoamLR", by_epoch=False)))
    assert is_replayable(make(None))


@pytest.mark.parametrize(("processes", "batch", "counts"), [(8, 32, 1), (1, 8, 1), (2, 16, 4)])
@pytest.mark.parametrize("name", ["pcm_coco", "prefix_coco", "pcm_blip_toy"])
def test_a_batch_k_times_as_large_has_k_times_the_rate_after_the_same_pairs(
    name, processes, batch, counts
):
    skip_without_models_of(name)
    cfg = Config.fromfile(find_config(name))
    base = cfg.auto_scale_lr.base_batch_size
    epoch = 960  # iterations of the base
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope")):
        before = rates_of(cfg, run_length(cfg, epoch))
        cfg.train_dataloader.batch_size = batch
        cfg.optim_wrapper.accumulative_counts = counts
        scale_to_batch(cfg, processes)
        ratio = processes * batch / base
        after = rates_of(cfg, run_length(cfg, round(epoch / ratio)))
    assert cfg.auto_scale_lr.enable is False
    pairs = np.linspace(0.02, 0.98, 50) * len(before) * base  # after so many
    one = before[np.round(pairs / base).astype(int)]
    other = after[np.round(pairs / base / ratio).astype(int)]
    np.testing.assert_allclose(other, ratio * counts * one, rtol=0.05)
    assert after.max() == pytest.approx(ratio * counts * before.max(), rel=0.02)


def test_scaling_needs_a_base_and_a_schedule_that_can_be_scaled():
    loader = dict(train_dataloader=dict(batch_size=4))
    with pytest.raises(ValueError, match=r"`auto_scale_lr.base_batch_size` must be set"):
        scale_to_batch(make(None, **loader), 1)
    cfg = make(dict(type="ExponentialLR", gamma=0.9, by_epoch=False), **loader)
    cfg.auto_scale_lr = dict(base_batch_size=2)
    with pytest.raises(ValueError, match="ExponentialLR with by_epoch=False"):
        scale_to_batch(cfg, 1)
