"""Several processes on a machine that has no GPU."""

import os
import subprocess

import torch
from mmengine.config import Config
from mmengine.device import get_device


def start_cpu_group(launcher: str, cfg: Config) -> bool:
    """Start a gloo process group and prepare the config for it, where there is no accelerator.

    MMEngine's launchers select a CUDA device before anything else; started earlier, a group is
    used by the runner as it is. Where there is an accelerator this does nothing.

    Args:
        launcher: ``none``, ``pytorch`` (torchrun) or ``slurm``.
        cfg: The config of the run; gets a ``model_wrapper_cfg`` unless it has one.

    Returns:
        Whether a group was started.

    Raises:
        RuntimeError: If the launcher's environment variables are not there.
    """
    if launcher == "none" or get_device() != "cpu":
        return False
    if launcher == "slurm":
        _take_environment_from_slurm()
    absent = [
        name
        for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        if name not in os.environ
    ]
    if absent:
        raise RuntimeError(
            f"--launcher {launcher}, but {', '.join(absent)} not in the environment: "
            "start through tools/dist_train.sh or tools/dist_test.sh"
        )
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


def _take_environment_from_slurm() -> None:
    names = ["SLURM_PROCID", "SLURM_NTASKS"]
    if "MASTER_ADDR" not in os.environ:
        names.append("SLURM_NODELIST")
    absent = [name for name in names if name not in os.environ]
    if absent:
        raise RuntimeError(
            f"--launcher slurm, but {', '.join(absent)} not in the environment: "
            "start through tools/slurm_train.sh"
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
