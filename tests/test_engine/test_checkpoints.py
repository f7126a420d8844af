import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.fileio import get_file_backend
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file

import pcm_plugin.engine.checkpoint_hook  # noqa: F401  registers the backend
from pcm_plugin.compatibility import checkpoints
from pcm_plugin.engine.checkpoints import (
    latest_checkpoint,
    load_local_checkpoint,
    load_weights,
    register_safe_loader,
)
from pcm_plugin.errors import UserError


@pytest.fixture(autouse=True, params=["safe_globals", "restricted_unpickler"])
def loading(request, monkeypatch):
    """Run each test with the loading of torch 2.6 and newer, and with that of older versions."""
    if request.param == "restricted_unpickler":
        monkeypatch.setattr(checkpoints, "_NAMED_GLOBALS", False)
    elif not checkpoints._NAMED_GLOBALS:
        pytest.skip("safe_globals of torch accepts named functions from 2.6 on")


class Trap:
    """Object that creates a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def history():
    buffer = HistoryBuffer()
    buffer.update(1.5, 2)
    buffer.update(3)
    return buffer


def test_mmengine_checkpoints_are_loaded(tmp_path):
    path = tmp_path / "epoch_1.pth"
    hub = {"log_scalars": {"loss": history()}, "best": np.float64(7.5), "best32": np.float32(2)}
    torch.save({"state_dict": {"w": torch.arange(3.0)}, "message_hub": hub}, path)
    loaded = load_local_checkpoint(str(path))
    assert loaded["state_dict"]["w"].tolist() == [0, 1, 2]
    assert loaded["message_hub"]["best"] == 7.5
    assert loaded["message_hub"]["best32"] == 2
    buffer = loaded["message_hub"]["log_scalars"]["loss"]
    assert buffer.mean() == pytest.approx(1.5)
    assert [column.tolist() for column in buffer.data] == [[1.5, 3.0], [2, 1]]


def test_safetensors_are_loaded(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"w": torch.ones(2)}, path)
    assert load_local_checkpoint(str(path))["state_dict"]["w"].tolist() == [1, 1]


def test_an_unsafe_pickle_is_rejected_and_not_executed(tmp_path):
    path = tmp_path / "epoch_1.pth"
    torch.save({"state_dict": {}, "message_hub": Trap(tmp_path / "sprung")}, path)
    with pytest.raises(UserError, match=r"epoch_1.pth is refused.*mkdir"):
        load_local_checkpoint(str(path))
    assert not (tmp_path / "sprung").exists()


def test_other_attributes_of_a_history_are_rejected(tmp_path):
    class Ladder:
        def __reduce__(self):
            return getattr, (HistoryBuffer, "__init__")

    path = tmp_path / "epoch_1.pth"
    torch.save({"step": Ladder()}, path)
    with pytest.raises(UserError, match=r"refused.*__init__"):
        load_local_checkpoint(str(path))


def test_an_archive_of_torchscript_is_rejected(tmp_path):
    path = tmp_path / "epoch_1.pth"
    torch.jit.script(torch.nn.Linear(2, 1)).save(str(path))
    with pytest.raises(UserError, match=r"epoch_1.pth is refused.*TorchScript"):
        load_local_checkpoint(str(path))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth does not exist"):
        load_local_checkpoint(str(tmp_path / "none.pth"))


def test_importing_the_package_does_not_change_mmengine():
    code = (
        "from mmengine.runner.checkpoint import CheckpointLoader as C\n"
        "import pcm_plugin.engine, pcm_plugin.commands.run_config\n"
        "print(C._get_checkpoint_loader('x.pth').__module__)\n"
        "pcm_plugin.commands.run_config.register_safe_loader()\n"
        "print(C._get_checkpoint_loader('x.pth').__module__)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert out.split() == ["mmengine.runner.checkpoint", "pcm_plugin.engine.checkpoints"]


def test_the_safe_loader_is_used_after_registration(tmp_path, monkeypatch):
    from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint

    monkeypatch.setattr(CheckpointLoader, "_schemes", dict(CheckpointLoader._schemes))
    register_safe_loader()
    path = tmp_path / "weights.safetensors"
    model = torch.nn.Linear(2, 1)
    save_file({"weight": torch.full((1, 2), 3.0), "bias": torch.zeros(1)}, path)
    load_checkpoint(model, str(path))
    assert model.weight.tolist() == [[3, 3]]
    # MMEngine 0.11 would execute this.
    torch.save({"state_dict": {}, "meta": Trap(tmp_path / "sprung")}, tmp_path / "epoch_1.pth")
    with pytest.raises(UserError, match=r"epoch_1.pth is refused.*mkdir"):
        load_checkpoint(model, str(tmp_path / "epoch_1.pth"))
    assert not (tmp_path / "sprung").exists()


def test_latest_checkpoint(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    for name, age in (("epoch_1.pth", 30), ("epoch_2.pth", 20), ("best_CIDEr_epoch_1.pth", 10)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    assert latest_checkpoint(tmp_path) == tmp_path / "epoch_2.pth"
    # The record of the run has priority, even if the folder was moved.
    (tmp_path / "last_checkpoint").write_text("/where/it/was/epoch_1.pth")
    assert latest_checkpoint(tmp_path) == tmp_path / "epoch_1.pth"
    # Killed while it wrote the record.
    (tmp_path / "last_checkpoint").write_text("")
    assert latest_checkpoint(tmp_path) == tmp_path / "epoch_2.pth"


def test_weights_that_do_not_fit_are_reported(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"weight": torch.zeros(1, 2), "other": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"missing \['bias'\], unexpected \['other'\]"):
        load_weights(torch.nn.Linear(2, 1), str(path))
    save_file({"weight": torch.zeros(1, 3), "bias": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="size mismatch for weight"):
        load_weights(torch.nn.Linear(2, 1), str(path))


def test_files_that_are_not_checkpoints_are_reported(tmp_path):
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("hello there")
        with pytest.raises(ValueError, match=f"{name} is not a checkpoint"):
            load_local_checkpoint(str(tmp_path / name))
    # As after a copy that was interrupted.
    torch.save({"state_dict": {"w": torch.zeros(1000)}}, tmp_path / "half.pth")
    save_file({"w": torch.zeros(1000)}, tmp_path / "half.safetensors")
    for name in ("half.pth", "half.safetensors"):
        os.truncate(tmp_path / name, 2000)
        with pytest.raises(UserError, match=f"{name} is not a checkpoint, or it is damaged"):
            load_local_checkpoint(str(tmp_path / name))
    (tmp_path / "empty.pth").touch()
    with pytest.raises(ValueError, match=r"empty\.pth is not a checkpoint"):
        load_local_checkpoint(str(tmp_path / "empty.pth"))
    torch.save({"model": {"predictor.logits.bias": torch.zeros(1)}}, tmp_path / "released.pth")
    with pytest.raises(ValueError, match=r"released\.pth .*pcm convert-pcmnet-checkpoint"):
        load_weights(torch.nn.Linear(2, 1), str(tmp_path / "released.pth"))


def test_weights_of_a_run_on_stored_features_fit_a_model_with_a_backbone(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"head.weight": torch.ones(1, 2), "head.bias": torch.zeros(1)}, path)
    model = torch.nn.ModuleDict({"head": torch.nn.Linear(2, 1), "backbone": torch.nn.Linear(2, 2)})
    load_weights(model, str(path))
    assert model["head"].weight.tolist() == [[1, 1]]


def test_checkpoints_are_written_atomically(tmp_path, monkeypatch):
    path = tmp_path / "epoch_1.pth"
    backend = get_file_backend(str(path), backend_args=dict(backend="pcm_plugin.atomic"))
    backend.put(b"first", path)
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        backend.put(b"second", path)
    assert path.read_bytes() == b"first"
