import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pcm_plugin.engine.checkpoints import load_local_checkpoint

CONFIG = "configs/pcm_coco.py"


@pytest.fixture
def script(tmp_path, tiny_settings):
    """Return a function that runs a shell script on the tiny task."""
    settings = {**tiny_settings, "train_cfg.max_epochs": 1, "train_dataloader.batch_size": 2}
    options = [f"{key}={value}" for key, value in settings.items()]

    checkout = tmp_path / "my checkout"
    checkout.symlink_to(Path.cwd())

    def script(name, *args, **environment):
        words = [checkout / "tools" / name, *args, "--work-dir", tmp_path / "my run"]
        return subprocess.run(
            [*words, "--cfg-options", *options],
            env={**os.environ, "PYTHON": sys.executable, "CDPATH": "/", **environment},
            capture_output=True,
            text=True,
            timeout=200,
        )

    return script


def test_two_processes_train_and_test_without_a_gpu(script, tmp_path):
    trained = script("dist_train.sh", CONFIG, "2")
    assert trained.returncode == 0, trained.stderr
    checkpoint = tmp_path / "my run" / "epoch_1.pth"
    # Twelve pairs, two per process.
    assert load_local_checkpoint(str(checkpoint))["meta"]["iter"] == 3

    tested = script("dist_test.sh", CONFIG, str(checkpoint), "2")
    assert tested.returncode == 0, tested.stderr
    result = json.loads((tmp_path / "my run" / "metrics.json").read_text())
    assert result["checkpoint"] == str(checkpoint)
    assert result["metrics"]["caption/CIDEr"] >= 0
    assert '"caption/CIDEr"' in tested.stdout


def test_slurm_without_a_gpu(script, tmp_path):
    # Replacement for srun: run the command for each task with its environment.
    srun = tmp_path / "srun"
    srun.write_text(
        '#!/bin/sh\necho "$@" > "$0.args"\n'
        'while [ "${1#-}" != "$1" ]; do shift; done\n'
        'SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0 SLURM_NODELIST=here exec "$@"\n'
    )
    srun.chmod(0o755)
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho 127.0.0.1\n")
    (tmp_path / "scontrol").chmod(0o755)
    run = script(
        "slurm_train.sh",
        "partition",
        "job",
        CONFIG,
        PATH=f"{tmp_path}:{os.environ['PATH']}",
        GPUS="1",
        GPUS_PER_NODE="0",
        SRUN_ARGS="--quotatype=spot --exclusive",
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "my run" / "epoch_1.pth").exists()
    args = (tmp_path / "srun.args").read_text()
    for word in ("--partition=partition", "--job-name=job", "--ntasks=1", "--exclusive"):
        assert word in args.split()
    assert "--gres" not in args


@pytest.mark.parametrize("name", ["dist_train.sh", "dist_test.sh", "slurm_train.sh"])
def test_usage_is_printed(name):
    run = subprocess.run([f"tools/{name}", CONFIG], capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.startswith("usage: ")
