"""The benchmarks run and print the expected keys; their figures are not tested."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pcm_plugin.models.layers import Dropout, FeedForward, transformer
from pcm_plugin.toyworld.world import build_world
from tests.test_tools.commands import run_script

BENCHMARKS = Path("benchmarks").resolve()
KEYS = {"gemm_gflop", "seconds", "matrix_gflops", "settings", "versions"}


def run(folder, name, *options):
    result = run_script(BENCHMARKS / name, *options, log=folder / "log.txt")
    assert result.code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    "command",
    [
        "retrieve_concepts.py --concepts 30 40 --repeats 3",
        "text_memory_projection.py --batch 4 --texts 3000 --width 64 --chunk 1000 --repeats 1",
        "metric.py --images 30 --rounds 1",
        "data_loader.py --entries 1000 --batches 20",
        "read_store.py --entries 1000 --npz 40 --reads 200 --folder {folder}",
        "startup.py --repeats 1",
        "train_step.py --batch 2 --vocabulary 100 --iterations 1",
        "beam_search.py --batch 2 --vocabulary 100 --batches 1 --natural",
    ],
)
def test_the_last_line_is_json_with_the_keys(command, tmp_path):
    name, *options = command.format(folder=tmp_path).split()
    last = json.loads(run(tmp_path, name, *options).splitlines()[-1])
    assert set(last) >= KEYS
    assert last["seconds"] > 0
    assert last["gemm_gflop"] == pytest.approx(last["seconds"] * last["matrix_gflops"], rel=1e-6)


def test_the_unoptimized_model_computes_the_same_loss(monkeypatch):
    """The baseline of the benchmarks computes the same function."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    from full_size_model import build_batch, build_model
    from unoptimized import make_unoptimized

    # They are replaced in the whole process.
    for place, name in ((transformer, "attention"), (Dropout, "forward"), (FeedForward, "forward")):
        monkeypatch.setattr(place, name, getattr(place, name))

    model = build_model(100, 20).train()
    for module in model.modules():
        if isinstance(module, Dropout):
            module.p = 0
        if hasattr(module, "attn_dropout"):
            module.attn_dropout = 0.0
    model.neck.noise_var = 0.0
    batch = model.data_preprocessor(build_batch(model, 4))
    ours = float(model(**batch, mode="loss")["loss"].detach())
    make_unoptimized(model)
    assert float(model(**batch, mode="loss")["loss"].detach()) == pytest.approx(ours, rel=1e-5)


def test_run_all_lists_each_command_once(tmp_path):
    commands = run(tmp_path, "run_all.py", "--dry").splitlines()
    assert "python benchmarks/train_step.py" in commands
    assert len(commands) == len(set(commands))


def run_gpu(folder, *options):
    """Return exit code, steps of ``gpu.json`` and content of ``gpu.md`` of the GPU benchmark."""
    command = [sys.executable, "benchmarks/gpu.py", "--out", folder, *options]
    process = subprocess.run(command, capture_output=True, text=True)
    assert (folder / "gpu.json").exists(), process.stderr
    found = json.loads((folder / "gpu.json").read_text())
    return process.returncode, found["steps"], (folder / "gpu.md").read_text()


def test_the_dry_run_of_the_gpu_benchmark(tmp_path):
    code, steps, page = run_gpu(tmp_path, "--device", "cpu", "--minutes", "2")
    assert [name for name, step in steps.items() if step["status"] == "failed"] == []
    assert code == 0
    # On a slow machine the time limit may not suffice for the other steps.
    assert steps["device"]["status"] == steps["parity"]["status"] == "ok"
    assert max(steps["parity"]["figures"]["largest_difference"].values()) < 1e-4
    assert steps["train_32_float32"]["figures"]["pairs_per_second"] > 0
    assert steps["toy_world"]["status"] == "skipped"
    for step in steps.values():
        assert f"| {step['title']} | " in page


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_failed_step_is_recorded_and_the_next_ones_run(tmp_path):
    code, steps, page = run_gpu(tmp_path, "--minutes", "2", "--steps", "device", "parity")
    assert code == 1
    assert [step["status"] for step in steps.values()] == ["failed", "failed"]
    assert all(step["traceback"] for step in steps.values())
    assert page.count("**failed**") == 2


def test_the_toy_world_from_captions_to_scores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = run(tmp_path, "toy_world.py", "--captions", "20", "--epochs", "1")
    found = json.loads(output.splitlines()[-1])
    assert found["captions"] == 20
    assert set(found["CIDEr"]) == {"town", "country"}
    assert (tmp_path / "work_dirs" / "pcm_toy" / "epoch_1.pth").exists()


def test_captions_of_regions_are_scored(decap_file, tmp_path, monkeypatch):
    town = tmp_path / "data" / "toy" / "town"
    build_world(town, "town", {"train": 0, "val": 0, "test": 3}, workers=1)
    page = tmp_path / "docs" / "captioning.md"
    page.parent.mkdir()
    begin, end = "<!-- regions: benchmarks/region_captions.py -->", "<!-- end of regions -->"
    page.write_text(f"a\n{begin}\nold\n{end}\nb\n")
    monkeypatch.chdir(tmp_path)
    last = json.loads(run(tmp_path, "region_captions.py", decap_file, "--write").splitlines()[-1])
    assert last["images"] == 3
    assert last["regions"] >= 3
    assert len(last["shares"]) == 2 + 3 * 3
    assert all(0 <= share <= 100 for row in last["shares"].values() for share in row.values())
    assert "| box, `sclip` | " in page.read_text()
    assert "old" not in page.read_text()


def test_the_shares_of_captions_of_regions(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from region_captions import Truth, score

    truths = [Truth("", ["dog", "cat"], []), Truth("", ["car"], [])]
    shares = score([["a dog and a cat", "a dog"], ["a dog"]], truths)
    assert shares == pytest.approx(
        {"names the thing": 100 / 3, "chance": 100 / 3, "names another thing": 100}
        | {"named right": 100 / 4}
    )
