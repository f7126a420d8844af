"""Process groups with and without GPUs."""

import os
import subprocess

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import init_dist
from mmengine.utils.dl_utils import set_multi_processing

from pcm_plugin.errors import UserError


def start_group(launcher: str, cfg: Config) -> bool:
    """Start the process group of a launcher before a runner exists.

    With an accelerator, this function does what MMEngine's runner would do later. MMEngine's
    launchers always select a CUDA device; without one, a gloo group is started and the config is
    prepared for it.

    Args:
        launcher: ``none``, ``pytorch`` (torchrun) or ``slurm``.
        cfg: Config of the run. Without GPUs, ``model_wrapper_cfg`` is set unless it has one.

    Returns:
        Whether a group was started.

    Raises:
        UserError: If the launcher's environment variables are not set.
    """
    if launcher == "none":
        return False
    on_cpu = get_device() == "cpu"
    if launcher == "slurm" and on_cpu:
        _take_environment_from_slurm()
    absent = [
        name
        for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        if name not in os.environ
    ]
    if absent and (launcher == "pytorch" or on_cpu):
        raise UserError(
            f"--launcher {launcher} needs the environment variables {', '.join(absent)}: start "
            "with tools/dist_train.sh or tools/dist_test.sh, or with torchrun -m pcm_plugin"
        )
    if not on_cpu:
        env_cfg = cfg.get("env_cfg") or {}
        set_multi_processing(**env_cfg.get("mp_cfg", {}), distributed=True)
        init_dist(launcher, **env_cfg.get("dist_cfg", {}))
        return True
    torch.distributed.init_process_group("gloo")
    cfg.setdefault(
        "model_wrapper_cfg",
        dict(
            type="MMDistributedDataParallel",
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get("find_unused_parameters", False),
        ),
    )
    return True


def stop_group() -> None:
    """Wait for all processes and destroy the process group, if there is one.

    A process that exits while others communicate with it can make them fail.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _take_environment_from_slurm() -> None:
    names = ["SLURM_PROCID", "SLURM_NTASKS"]
    if "MASTER_ADDR" not in os.environ:
        names.append("SLURM_NODELIST")
    absent = [name for name in names if name not in os.environ]
    if absent:
        raise UserError(
            f"--launcher slurm needs the environment variables {', '.join(absent)}: start with "
            "tools/slurm_train.sh"
        )
    os.environ["RANK"] = os.environ["SLURM_PROCID"]
    os.environ["WORLD_SIZE"] = os.environ["SLURM_NTASKS"]
    os.environ["LOCAL_RANK"] = os.environ.get("SLURM_LOCALID", "0")
    os.environ.setdefault("MASTER_PORT", "29500")
    if "MASTER_ADDR" not in os.environ:
        os.environ["MASTER_ADDR"] = subprocess.run(
            ["scontrol", "show", "hostnames", os.environ["SLURM_NODELIST"]],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()[0]
