import json
import multiprocessing
import os
import signal
import time

import pytest

from pcm_plugin.engine.work_folder import (
    OtherRunError,
    best_checkpoint,
    claim_run,
    is_finished,
    lock_folder,
    mark_finished,
    require_best_checkpoint,
)
from pcm_plugin.errors import LockedError

RUN = {"settings": {"train_cfg.max_epochs": 2, "processes": 1}, "inputs": {"store": "a"}}
OTHER = {"settings": {"train_cfg.max_epochs": 3, "processes": 1}, "inputs": {"store": "b"}}


def hold(folder, ready):
    with lock_folder(folder):
        ready.set()
        if os.fork() == 0:  # such as a worker of a data loader, which outlives its parent
            time.sleep(5)
            os._exit(0)
        time.sleep(60)


def test_a_folder_is_locked_until_the_process_ends(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    holder = context.Process(target=hold, args=(tmp_path, ready))
    holder.start()
    assert ready.wait(20)
    with pytest.raises(LockedError, match=rf"writes to .*process {holder.pid} on .*--work-dir"):
        lock_folder(tmp_path).__enter__()
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with lock_folder(tmp_path):
        pass


def test_an_empty_new_folder_is_removed(tmp_path):
    with lock_folder(tmp_path / "run"):
        assert (tmp_path / "run").exists()
    assert not (tmp_path / "run").exists()
    with lock_folder(tmp_path / "run"):
        claim_run(tmp_path / "run", RUN, None)
    assert (tmp_path / "run" / "run.json").exists()


def test_checkpoints_of_another_training_are_not_replaced(tmp_path):
    claim_run(tmp_path, RUN, None)
    claim_run(tmp_path, OTHER, None)  # nothing would be lost
    (tmp_path / "epoch_1.pth").touch()
    with pytest.raises(OtherRunError, match=r"contains a training .epoch_1\.pth") as caught:
        claim_run(tmp_path, RUN, None)
    said = str(caught.value)
    assert "train_cfg.max_epochs: 3 there, 2 here" in said
    assert "store: other data" in said
    assert said.endswith("\nChoose another --work-dir, or remove the folder.")
    with pytest.raises(OtherRunError, match=r"replace its checkpoints\.\nResume from its last ch"):
        claim_run(tmp_path, OTHER, None)
    with pytest.raises(OtherRunError, match="which is in another folder"):
        claim_run(tmp_path, OTHER, tmp_path.parent / "epoch_1.pth")
    claim_run(tmp_path, OTHER, tmp_path / "epoch_1.pth")


def test_checkpoints_from_elsewhere_are_not_replaced(tmp_path):
    (tmp_path / "best_caption_CIDEr_epoch_3.pth").touch()
    with pytest.raises(OtherRunError, match="this one would replace its checkpoints"):
        claim_run(tmp_path, RUN, None)
    with pytest.raises(OtherRunError, match=r"training without run\.json"):
        is_finished(tmp_path, RUN)


def test_a_finished_training_is_identified_by_settings_and_data(tmp_path):
    assert not is_finished(tmp_path / "nowhere", RUN)
    claim_run(tmp_path, RUN, None)
    best = tmp_path / "best_caption_CIDEr_epoch_2.pth"
    best.touch()
    assert not is_finished(tmp_path, RUN)
    mark_finished(tmp_path)
    assert is_finished(tmp_path, RUN)
    assert best_checkpoint(tmp_path) == best
    assert require_best_checkpoint(tmp_path) == str(best)
    with pytest.raises(OtherRunError, match=r"other settings or data:\nstore: other data\ntrain_c"):
        is_finished(tmp_path, OTHER)
    # Two processes with half the batch size equal one.
    many = {"train_dataloader.batch_size": 4, "processes": 2}
    one = {"train_dataloader.batch_size": 8, "processes": 1}
    claim_run(tmp_path, {**RUN, "settings": many}, best)
    mark_finished(tmp_path)
    assert is_finished(tmp_path, {**RUN, "settings": one})
    best.unlink()
    assert not is_finished(tmp_path, {**RUN, "settings": one})


def test_without_validation_there_is_no_best_checkpoint(tmp_path):
    claim_run(tmp_path, RUN, None)
    mark_finished(tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["finished"]
    with pytest.raises(FileNotFoundError, match="must have a val_dataloader"):
        require_best_checkpoint(tmp_path)
