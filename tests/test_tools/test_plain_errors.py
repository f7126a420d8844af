"""Wrong input of each data tool ends in one line, not in a traceback."""

import ast
import errno
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from pcm_plugin import cli
from pcm_plugin.errors import LockedError, MissingFileError, UserError, plain_errors
from tests.test_tools.commands import run

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("tool", "args", "message"),
    [
        ("build-vocabulary", "captions.txt --out v", "lower min_count or pass more captions"),
        ("build-concepts", "captions.txt --model ViT-X --out c", "ViT-X"),
        ("build-concepts", "none.txt --model X --out c", "none.txt"),
        ("import-concepts", "none.pickle c.safetensors", "no concept pickle at none.pickle"),
        (
            "convert-pcmnet-checkpoint",
            "none.pth o.safetensors --vocabulary none.txt",
            "none.txt",
        ),
        ("generate", "captions.txt --pipeline {tmp} --out {tmp}/images", "no model_index.json"),
        ("extract", "none --model X --out s", "no folder of images at none"),
        ("train", "none.py", "config none.py does not exist"),
        (
            "test",
            "configs/pcm_toy.py none.pth --cfg-options model.vocabulary={tmp}/none.txt",
            "made by: pcm demo --recipe toy",
        ),
        ("export", "none.py w.pth --out o", "config none.py does not exist"),
        ("paper-table", "toy --rows none", "no row of toy is called none"),
        ("report", "none --count 0", "--count must be at least 1, got 0"),
        ("store", "verify none", "none"),
    ],
)
def test_user_errors_are_one_line(tmp_path, tool, args, message):
    (tmp_path / "captions.txt").write_text("dog\n")
    words = args.format(tmp=tmp_path).replace("captions.txt", f"{tmp_path}/captions.txt").split()
    result = run(tool, *words, log=tmp_path / "log")
    assert result.code == 1
    assert "Traceback" not in result.output
    assert message in result.output.splitlines()[-1]


@pytest.mark.parametrize("name", ["picture.png", "binary.py", "bad.json", "bad.yml", "bad.py"])
@pytest.mark.parametrize("words", ["train", "caption best.pth {tmp} --config"])
def test_a_file_that_is_not_a_config_is_reported(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"a: {" if name.startswith("bad") else b"\x89PNG")
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    command, *args = words.format(tmp=tmp_path).split()
    result = run(command, *args, tmp_path / name, log=tmp_path / "log", launcher=False)
    assert result.code == 1
    assert "Traceback" not in result.output
    assert f"{name} cannot be read: " in result.output


def test_other_errors_keep_their_traceback():
    for error in (TypeError, KeyError, ValueError, RuntimeError, OSError):
        with pytest.raises(error), plain_errors():
            raise error("x")


def test_errors_of_the_user_and_of_the_operating_system_exit_with_their_message():
    errors = (UserError("name=1"), MissingFileError("no x"), LockedError("busy"))
    for error in (*errors, OSError(errno.ENOSPC, "disk full", "out.json")):
        with pytest.raises(SystemExit) as caught, plain_errors():
            raise error
        assert caught.value.code == str(error)


@pytest.mark.parametrize("module", [command.module for command in cli.COMMANDS.values()])
def test_every_command_prints_user_errors_without_a_traceback(module):
    path = Path(importlib.util.find_spec(f"pcm_plugin.commands.{module}").origin)
    decorators = {
        node.name: [ast.unparse(decorator) for decorator in node.decorator_list]
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    assert decorators["main"] == ["plain_errors()"]


def test_an_error_of_torch_in_a_command_keeps_its_traceback(tmp_path):
    (tmp_path / "config.py").write_text("x = __import__('torch').distributions.Normal(0.0, -1.0)\n")
    args = (tmp_path / "config.py", "weights.pth", "--out", tmp_path / "o.safetensors")
    result = run("export", *args, log=tmp_path / "log")
    assert result.code == 1
    assert "Traceback" in result.output
    assert "ValueError: Expected parameter scale" in result.output


def test_an_interrupted_command_ends_silently():
    with pytest.raises(SystemExit) as caught, plain_errors():
        raise KeyboardInterrupt
    assert caught.value.code == 130


@pytest.mark.parametrize(
    ("words", "unbuffered"),
    [
        *(("score c.json r.csv", False), ("score c.json r.csv", True)),
        *(("--help", False), ("--help", True), ("score --help", False)),
    ],
)
def test_a_closed_pipe_ends_a_command_silently(tmp_path, words, unbuffered):
    (tmp_path / "r.csv").write_text("image,caption\n1.jpg,a dog\n2.jpg,a cat\n")
    rows = [{"image_id": 1, "caption": "a dog"}, {"image_id": 2, "caption": "a cat"}]
    (tmp_path / "c.json").write_text(json.dumps(rows))
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        [sys.executable, "-m", "pcm_plugin", *words.split()],
        cwd=tmp_path,
        # Empty is the same as not set: the output is written when Python exits.
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1" if unbuffered else ""},
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "Broken" not in result.stderr
