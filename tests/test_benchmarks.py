"""That the benchmarks run and say what others read; their figures are no matter of tests."""

import json
import subprocess
import sys

import pytest

KEYS = {"gemm_gflop", "seconds", "matrix_gflops", "settings", "versions"}


def run(*command):
    return subprocess.run(
        [sys.executable, *command], check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize(
    "command",
    [
        "concepts.py --concepts 30 40 --repeats 3",
        "projection.py --batch 4 --texts 3000 --width 64 --chunk 1000 --repeats 1",
        "metric.py --images 30 --rounds 1",
        "loader.py --entries 1000 --batches 20",
        "store.py --entries 1000 --npz 40 --reads 200 --folder {folder}",
        "train_step.py --batch 2 --vocabulary 100 --iterations 1",
        "beam_search.py --batch 2 --vocabulary 100 --batches 1 --natural",
    ],
)
def test_the_last_line_is_json_with_the_keys(command, tmp_path):
    name, *options = command.format(folder=tmp_path).split()
    last = json.loads(run(f"benchmarks/{name}", *options).splitlines()[-1])
    assert set(last) >= KEYS
    assert last["seconds"] > 0
    assert last["gemm_gflop"] == pytest.approx(last["seconds"] * last["matrix_gflops"], rel=1e-6)


def test_the_straightforward_model_computes_the_same_loss():
    """What the figures are set beside must be the same model."""
    code = """
import sys; sys.path.insert(0, "benchmarks")
import torch
from full_size import build_batch, build_model
from pcm_plugin.models.layers import Dropout
from straightforward import make_straightforward
model = build_model(100, 20).train()
for module in model.modules():
    if isinstance(module, Dropout):
        module.p = 0
    if hasattr(module, "attn_dropout"):
        module.attn_dropout = 0.0
model.neck.noise_var = 0.0
batch = model.data_preprocessor(build_batch(model, 4))
ours = float(model(**batch, mode="loss")["loss"].detach())
make_straightforward(model)
print(ours / float(model(**batch, mode="loss")["loss"].detach()))
"""
    assert float(run("-c", code)) == pytest.approx(1, abs=1e-5)


def test_all_of_them_are_listed_with_their_commands():
    commands = run("benchmarks/run_all.py", "--dry").splitlines()
    assert "python benchmarks/train_step.py" in commands
    assert len(commands) == len(set(commands))
