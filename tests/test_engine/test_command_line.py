from argparse import Namespace

import pytest
from mmengine.config import Config

from pcm_plugin.commands import run_config as command_line


@pytest.mark.parametrize("has_gpu", [True, False])
def test_batches_are_pinned_with_a_gpu(monkeypatch, has_gpu):
    monkeypatch.setattr(command_line, "is_cuda_available", lambda: has_gpu)
    monkeypatch.setattr(command_line.torch, "use_deterministic_algorithms", lambda *_, **__: None)
    monkeypatch.setattr(command_line, "register_safe_loader", lambda: None)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setenv("LOCAL_RANK", "0")
    cfg = Config({"train_dataloader": {}, "val_dataloader": None})
    cfg.test_dataloader = {"pin_memory": False}
    command_line.prepare_process(Namespace(local_rank=0, launcher="none"), cfg)
    assert cfg.train_dataloader.get("pin_memory", False) is has_gpu
    assert cfg.val_dataloader is None
    assert cfg.test_dataloader.pin_memory is False
