import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from pcm_plugin.engine.checkpoints import load_local_checkpoint
from pcm_plugin.engine.work_folder import lock_folder
from tests.test_tools.commands import run

BASE = Path("configs/pcm_coco.py").resolve()

# The killer is found by custom_imports, classes of the package by their prefix.
KILLED = f"""
_base_ = "{BASE}"
custom_imports = dict(imports=["tests.test_tools.killer"])
custom_hooks = [dict(type="pcm_plugin.SeedEveryIterationHook"), dict(type="KillHook", at=%d)]
"""

# Plain SGD without clipping: the change of a step is the gradient.
PLAIN = f"""
_base_ = "{BASE}"
optim_wrapper = dict(_delete_=True, optimizer=dict(type="SGD", lr=1.0))
param_scheduler = None
val_dataloader = val_evaluator = val_cfg = None
default_hooks = dict(checkpoint=dict(save_best=None))
"""

COSINE = f"""
_base_ = "{BASE}"
param_scheduler = dict(_delete_=True, type="CosineAnnealingLR", by_epoch=False)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
"""

UNUSED = ("val_", "param_scheduler")


def options(settings):
    return ["--cfg-options", *(f"{key}={value}" for key, value in settings.items())]


def weights(path):
    return load_local_checkpoint(str(path))["state_dict"]


@pytest.fixture(scope="module")
def train(tmp_path_factory, tiny_settings):
    """Return a function that trains for three epochs of three iterations, killed before one."""
    folder = tmp_path_factory.mktemp("train")

    def train(work_dir, *args, kill_at=-1, processes=1, **settings):
        config = folder / f"killed_at_{kill_at}.py"
        config.write_text(KILLED % kill_at)
        args = [config, *args, "--work-dir", work_dir]
        args += options({**tiny_settings, "train_cfg.max_epochs": 3, **settings})
        return run("train", *args, log=folder / "log", processes=processes)

    return train


def assert_same_run(one, other):
    """Check that weights, optimizer and schedule are bit-identical."""
    one, other = load_local_checkpoint(str(one)), load_local_checkpoint(str(other))
    assert one["state_dict"].keys() == other["state_dict"].keys()
    for key, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][key]), key
    assert str(one["optimizer"]) == str(other["optimizer"])
    assert one["param_schedulers"] == other["param_schedulers"]
    assert one["meta"]["iter"] == other["meta"]["iter"] == 9
    for key in ("best_score", "best_ckpt"):
        values = [Path(str(run["message_hub"]["runtime_info"][key])).name for run in (one, other)]
        assert values[0] == values[1]


@pytest.fixture(scope="module")
def survivor(train, tmp_path_factory):
    """Return the last checkpoint of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("survivor")
    assert train(folder).code == 0
    return folder / "epoch_3.pth"


def test_a_killed_run_resumes_to_the_same_weights(train, tmp_path, survivor):
    # With data loader workers, killed in the second epoch, after the first checkpoint.
    workers = {"train_dataloader.num_workers": 2, "train_dataloader.persistent_workers": True}
    assert train(tmp_path / "workers", kill_at=4, **workers).code == -9
    assert not (tmp_path / "workers" / "epoch_2.pth").exists()
    assert train(tmp_path / "workers", "--resume", **workers).code == 0
    assert_same_run(tmp_path / "workers" / "epoch_3.pth", survivor)

    # From the path of a checkpoint in the middle of an epoch.
    by_iteration = {
        "default_hooks.checkpoint.by_epoch": False,
        "default_hooks.checkpoint.interval": 4,
        "default_hooks.checkpoint.max_keep_ckpts": -1,
    }
    assert train(tmp_path / "iterations", kill_at=5, **by_iteration).code == -9
    checkpoint = tmp_path / "iterations" / "iter_4.pth"
    assert train(tmp_path / "iterations", "--resume", checkpoint, **by_iteration).code == 0
    trained = weights(tmp_path / "iterations" / "iter_9.pth")
    for key, value in weights(survivor).items():
        assert torch.equal(value, trained[key]), key


def test_an_epoch_whose_validation_was_killed_is_validated(train, tmp_path, survivor):
    # State after a kill between the checkpoint and its validation.
    checkpoint = load_local_checkpoint(str(survivor.parent / "epoch_2.pth"))
    for key in ("best_score", "best_ckpt"):
        del checkpoint["message_hub"]["runtime_info"][key]
    (tmp_path / "again").mkdir()
    torch.save(checkpoint, tmp_path / "again" / "epoch_2.pth")
    assert train(tmp_path / "again", "--resume").code == 0
    trained = load_local_checkpoint(str(tmp_path / "again" / "epoch_3.pth"))
    best = Path(trained["message_hub"]["runtime_info"]["best_ckpt"]).name
    assert best == "best_caption_CIDEr_epoch_2.pth"


def test_two_processes_with_an_average_resume_to_the_same_weights(train, tmp_path):
    average = {
        "default_hooks.average.type": "pcm_plugin.AverageWeightsHook",
        "default_hooks.average.epochs": 0.5,
    }
    half = {"train_dataloader.batch_size": 2, **average}
    assert train(tmp_path / "whole", processes=2, **half).code == 0
    assert train(tmp_path / "killed", processes=2, kill_at=4, **half).code == -9
    assert train(tmp_path / "killed", "--resume", processes=2, **half).code == 0
    assert_same_run(tmp_path / "killed" / "epoch_3.pth", tmp_path / "whole" / "epoch_3.pth")
    averaged = load_local_checkpoint(str(tmp_path / "whole" / "epoch_3.pth"))
    key = "decoder.output.weight"
    plain = averaged["ema_state_dict"][f"module.{key}"]
    assert not torch.equal(averaged["state_dict"][key], plain)
    result = train(tmp_path / "killed", "--resume")
    assert result.code == 1
    assert "default_hooks.average.epochs: 0.5 there, not set here" in result.output


@pytest.mark.parametrize("gamma_type", ["batch", "none"])
def test_a_step_of_two_processes_is_that_of_one(tmp_path, tiny_settings, gamma_type):
    config = tmp_path / "plain.py"
    config.write_text(PLAIN)
    settings = {
        **{key: value for key, value in tiny_settings.items() if not key.startswith(UNUSED)},
        "model.loss.gamma_type": gamma_type,
        "model.neck.noise_var": 0.0,
        "model.decoder.embed_dropout": 0.0,
        "model.decoder.output_dropout": 0.0,
        **{f"model.{part}.dropout": 0.0 for part in ("neck", "encoder", "decoder")},
        **{f"model.{part}.attn_dropout": 0.0 for part in ("encoder", "decoder")},
        "train_cfg.max_epochs": 1,
        "train_dataloader.dataset.max_pairs": 8,
    }

    def trained(name, size):
        args = ["--work-dir", tmp_path / name]
        args += options({**settings, "train_dataloader.batch_size": 8 // size})
        result = run("train", config, *args, log=tmp_path / "log", processes=size)
        assert result.code == 0, result.output
        checkpoint = load_local_checkpoint(str(tmp_path / name / "epoch_1.pth"))
        assert checkpoint["meta"]["iter"] == 1
        return checkpoint["state_dict"]

    one, two = trained("one", 1), trained("two", 2)
    torch.testing.assert_close(two, one, rtol=0, atol=1e-5)


def test_mixed_precision_trains_without_a_gpu(train, tmp_path):
    result = train(tmp_path / "mixed", "--amp", **{"train_cfg.max_epochs": 1})
    assert result.code == 0, result.output
    assert train(tmp_path / "plain", **{"train_cfg.max_epochs": 1}).code == 0
    mixed = weights(tmp_path / "mixed" / "epoch_1.pth")
    plain = weights(tmp_path / "plain" / "epoch_1.pth")
    assert all(
        value.dtype == torch.float32 for value in mixed.values() if value.is_floating_point()
    )
    different = [key for key in plain if not torch.equal(plain[key], mixed[key])]
    assert different


def test_learning_rate_scales_with_the_batch(train, tmp_path):
    result = train(tmp_path / "scaled", "--auto-scale-lr", **{"train_cfg.max_epochs": 1})
    assert result.code == 0, result.output
    # Batches of 4 with a base of 32: eight times the warm-up, an eighth of the rate.
    assert "still rises when the run ends" in result.output
    checkpoint = load_local_checkpoint(str(tmp_path / "scaled" / "epoch_1.pth"))
    (schedule,) = checkpoint["param_schedulers"]
    assert schedule["warmup"] == 32
    rates = checkpoint["message_hub"]["log_scalars"]["train/lr"].data[0]
    # After one iteration of the base, 32 pairs, it would be D^-0.5 * warmup^-1.5.
    assert rates[0] * 8 == pytest.approx(16**-0.5 * 4**-1.5 / 8)


def test_missing_data_is_reported_before_the_run(tmp_path):
    result = run("train", BASE, "--work-dir", tmp_path / "run", log=tmp_path / "log")
    assert result.code == 1
    assert "Traceback" not in result.output
    for name in ("vocabulary.txt", "vit_b32/concepts.safetensors"):
        assert f"missing: data/coco/{name}" in result.output
    for name in ("train_store", "val_store"):
        assert f"missing: data/coco/vit_b32/{name}" in result.output
    assert "made by: pcm " in result.output
    assert "test_store" not in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["configs/none.py"], "config configs/none.py does not exist"),
        (["--resume", "none.pth"], "--resume: checkpoint none.pth does not exist"),
        (["--resume", "configs/pcm_coco.py"], "--resume: configs/pcm_coco.py is"),
        (["--launcher", "pytorch"], "RANK"),
        (["--launcher", "slurm"], "SLURM_PROCID, SLURM_NTASKS, SLURM_NODELIST: start with"),
    ],
)
def test_invalid_arguments_are_reported_without_traceback(train, tmp_path, args, message):
    if args[0].endswith(".py"):
        result = run("train", *args, log=tmp_path / "log")
    else:
        result = train(tmp_path / "wrong", *args)
    assert result.code == 1
    assert message in result.output
    assert "Traceback" not in result.output


def test_an_option_without_a_value_is_reported(train, tmp_path):
    result = train(tmp_path / "wrong", "--cfg-options", "train_cfg.max_epochs")
    assert result.code == 2
    assert "--cfg-options must be KEY=VALUE" in result.output


def test_training_without_workers_needs_no_other_option(train, tmp_path):
    settings = {"train_dataloader.num_workers": 0, "train_dataloader.persistent_workers": True}
    result = train(tmp_path / "run", **settings, **{"train_cfg.max_epochs": 1})
    assert result.code == 0, result.output


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("train_dataloader.batch_size=0", "train_dataloader.batch_size must be a whole number"),
        ("trian_cfg.max_epochs=1", "the config has no `trian_cfg`; did you mean `train_cfg`?"),
        ("model.neck.top_concept=5", "did you mean `top_concepts`?"),
        ("optim_wrapper.clip_grad.type=valu", "optim_wrapper: type of clip_grad should be"),
        ("val_dataloader.dataset.max_pairs=-1", "max_pairs"),
    ],
)
def test_an_invalid_setting_is_reported_before_anything_is_written(
    train, tmp_path, option, message
):
    key, _, value = option.partition("=")
    result = train(tmp_path / "run", **{key: value})
    assert result.code == 1
    assert message in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "run").exists()


def test_an_unsafe_pickle_is_not_resumed(train, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"state_dict": {}, "meta": Trap()}, tmp_path / "foreign.pth")
    result = train(tmp_path / "foreign", "--resume", tmp_path / "foreign.pth")
    assert result.code == 1
    assert "foreign.pth is refused" in result.output
    assert not (tmp_path / "sprung").exists()


def test_weights_without_a_run_are_not_resumed(train, survivor, tmp_path):
    torch.save({"state_dict": weights(survivor)}, tmp_path / "weights.pth")
    result = train(tmp_path / "run", "--resume", tmp_path / "weights.pth")
    assert result.code == 1
    assert "weights.pth has no meta, message_hub, optimizer" in result.output
    assert "Traceback" not in result.output


def test_a_run_of_another_model_is_not_resumed(train, survivor, tmp_path):
    result = train(tmp_path / "run", "--resume", survivor, **{"model.neck.selection": "none"})
    assert result.code == 1
    assert "does not fit the model" in result.output
    assert "neck.text_proj.weight" in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "run").exists()


def test_a_run_on_other_data_is_not_resumed(train, survivor, tmp_path, tiny_settings):
    other = tiny_settings["val_dataloader.dataset.store"]
    settings = {"train_dataloader.dataset.store": other, "train_cfg.max_epochs": 4}
    result = train(tmp_path / "run", "--resume", survivor, **settings)
    assert result.code == 1
    assert "other settings or data.\ntrain_dataloader.dataset.store: other data" in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "run").exists()
    # The path of the data does not matter.
    moved = shutil.copytree(tiny_settings["train_dataloader.dataset.store"], tmp_path / "moved")
    settings["train_dataloader.dataset.store"] = moved
    assert train(tmp_path / "run", "--resume", survivor, **settings).code == 0
    assert (tmp_path / "run" / "epoch_4.pth").exists()


def test_a_folder_without_a_store_is_reported(train, tmp_path):
    (tmp_path / "empty").mkdir()
    result = train(tmp_path / "run", **{"train_dataloader.dataset.store": tmp_path / "empty"})
    assert result.code == 1
    assert f"no feature store at {tmp_path / 'empty'}" in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["test", "export", "tune"])
def test_a_checkpoint_is_not_used_with_another_vocabulary(
    command, survivor, tmp_path, tiny_settings
):
    words = Path(tiny_settings["model.vocabulary"]).read_text().split()
    (tmp_path / "other.txt").write_text("\n".join(reversed(words)))
    settings = {**tiny_settings, "model.vocabulary": tmp_path / "other.txt"}
    extra = {
        "test": ["--work-dir", tmp_path],
        "export": ["--out", tmp_path / "captioner.safetensors"],
        "tune": ["--rerank-weights", 0],
    }
    args = [BASE, survivor, *extra[command], *options(settings)]
    result = run(command, *args, log=tmp_path / "log", launcher=False)
    assert result.code == 1
    assert "was trained with another vocabulary" in result.output
    assert "Traceback" not in result.output


def test_more_epochs_equal_an_uninterrupted_run(train, tmp_path, survivor):
    short = {"train_cfg.max_epochs": 1}
    assert train(tmp_path / "run", **short).code == 0
    stopped = load_local_checkpoint(str(tmp_path / "run" / "epoch_1.pth"))
    assert stopped["param_schedulers"][0]["end"] == 3
    assert train(tmp_path / "run", "--resume").code == 0
    assert_same_run(tmp_path / "run" / "epoch_3.pth", survivor)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["settings"]["train_cfg.max_epochs"] == 3
    assert record == json.loads((survivor.parent / "run.json").read_text())
    result = train(tmp_path / "run", "--resume", **short)
    assert result.code == 1
    assert "was written after 3 epochs, but the run has only 1: set train_cfg.max_epochs" in (
        result.output
    )


@pytest.mark.parametrize(
    ("settings", "processes", "lines"),
    [
        ({"train_dataloader.batch_size": 6}, 1, ["train_dataloader.batch_size: 4 there, 6 here"]),
        (
            {"train_dataloader.batch_size": 2},
            2,
            ["processes: 1 there, 2 here", "train_dataloader.batch_size: 4 there, 2 here"],
        ),
        (
            {"param_scheduler.warmup": 2},
            1,
            ["learning rate of iteration 1: 0.03125 there", "param_scheduler.warmup: 4 there, 2"],
        ),
        (
            {"optim_wrapper.optimizer.lr": 0.5},
            1,
            ["other learning rates so far", "optim_wrapper.optimizer.lr: 1.0 there, 0.5 here"],
        ),
        (
            {"optim_wrapper.optimizer.betas": "(0.9,0.9)"},
            1,
            ["optim_wrapper.optimizer.betas: [0.9, 0.999] there, [0.9, 0.9] here"],
        ),
        ({"randomness.seed": 1}, 1, ["randomness.seed: 1234 there, 1 here"]),
        (
            {"optim_wrapper.accumulative_counts": 2},
            1,
            ["optim_wrapper.accumulative_counts: not set there, 2 here"],
        ),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else "",
)
def test_settings_that_prevent_resuming_are_reported(
    train, tmp_path, survivor, settings, processes, lines
):
    more = {"train_cfg.max_epochs": 4, **settings}
    result = train(tmp_path / "run", "--resume", survivor, processes=processes, **more)
    assert result.code == 1
    for line in lines:
        assert line in result.output
    assert "Traceback" not in result.output
    assert f"--work-dir OTHER --cfg-options load_from={survivor}" in result.output
    assert not (tmp_path / "run").exists()


def test_a_schedule_over_the_whole_run_cannot_be_extended(tmp_path, tiny_settings):
    config = tmp_path / "cosine.py"
    config.write_text(COSINE)
    settings = {k: v for k, v in tiny_settings.items() if not k.startswith("param_scheduler")}

    def trained(*args, **more):
        words = [config, "--work-dir", tmp_path / "run", *args]
        return run("train", *words, *options({**settings, **more}), log=tmp_path / "log")

    assert trained(**{"train_cfg.max_epochs": 2}).code == 0
    result = trained("--resume", **{"train_cfg.max_epochs": 3})
    assert result.code == 1
    assert "an uninterrupted run would have had other learning rates so far" in result.output
    assert "learning rate of iteration 2: " in result.output
    assert "train_cfg.max_epochs: 2 there, 3 here" in result.output
    # Future milestones have no effect on past iterations.
    assert trained("--resume", **{"train_cfg.max_epochs": 2}).code == 0


def test_a_work_folder_belongs_to_one_training(train, tmp_path, tiny_settings):
    folder = tmp_path / "run"
    short = {"train_cfg.max_epochs": 1}
    assert train(folder, **short).code == 0
    before = {path: path.read_bytes() for path in folder.glob("*.pth")}
    other = {"train_dataloader.dataset.store": tiny_settings["val_dataloader.dataset.store"]}
    result = train(folder, **short, **other)
    assert result.code == 1
    assert f"{folder} contains a finished training" in result.output
    assert "train_dataloader.dataset.store: other data" in result.output
    assert "Choose another --work-dir, or remove the folder" in result.output
    result = train(folder, **short)
    assert result.code == 1
    assert "Resume from its last checkpoint with --resume" in result.output
    result = train(folder, **{"train_cfg.max_epochs": 2})
    assert result.code == 1
    assert "train_cfg.max_epochs: 1 there, 2 here\nResume from its last checkpoint" in result.output
    with lock_folder(folder):
        result = train(folder, "--resume", processes=2, **short)
    assert result.code == 1
    assert f"another training writes to {folder}" in result.output
    assert "Traceback" not in result.output
    assert {path: path.read_bytes() for path in folder.glob("*.pth")} == before


def test_there_is_one_best_checkpoint_after_moving_a_run(train, tmp_path):
    assert train(tmp_path / "first", **{"train_cfg.max_epochs": 1}).code == 0
    (tmp_path / "first").rename(tmp_path / "moved")
    # From a run that was killed between writing a best checkpoint and removing the last one.
    (tmp_path / "moved" / "best_caption_CIDEr_epoch_0.pth").touch()
    assert train(tmp_path / "moved", "--resume", **{"train_cfg.max_epochs": 2}).code == 0
    assert len(list((tmp_path / "moved").glob("best_*.pth"))) == 1
    moved = next((tmp_path / "moved").glob("best_*.pth"))
    last = tmp_path / "moved" / "epoch_2.pth"
    assert train(tmp_path / "third", "--resume", last, **{"train_cfg.max_epochs": 2}).code == 0
    (brought,) = (tmp_path / "third").glob("best_*.pth")
    assert brought.name == moved.name


def test_too_few_pairs_for_a_batch_are_reported(train, tmp_path):
    result = train(tmp_path / "run", **{"train_dataloader.batch_size": 64})
    assert result.code == 1
    assert "drop_last=True leaves no batch: 12 pairs" in result.output
    assert "a batch of 64 (train_dataloader.batch_size)" in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "run").exists()
