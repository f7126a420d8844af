"""Wrong input of each data tool ends in one line, not in a traceback."""

import json
import os
import subprocess
import sys

import pytest

from pcm_plugin.errors import plain_errors
from tests.test_tools.commands import run


@pytest.mark.parametrize(
    ("tool", "args", "message"),
    [
        ("build_vocabulary.py", "captions.txt --out v", "lower min_count or give more captions"),
        ("build_concepts.py", "captions.txt --model ViT-X --out c", "ViT-X"),
        ("build_concepts.py", "none.txt --model X --out c", "none.txt"),
        ("import_concepts.py", "none.pickle c.safetensors", "no concept pickle at none.pickle"),
        (
            "convert_pcmnet_checkpoint.py",
            "none.pth o.safetensors --vocabulary none.txt",
            "none.txt",
        ),
        ("generate.py", "captions.txt --pipeline {tmp} --out {tmp}/images", "no model_index.json"),
        ("extract.py", "none --model X --out s", "no folder of images at none"),
    ],
)
def test_one_line_says_what_is_wrong(tmp_path, tool, args, message):
    (tmp_path / "captions.txt").write_text("dog\n")
    words = args.format(tmp=tmp_path).replace("captions.txt", f"{tmp_path}/captions.txt").split()
    result = run(tool, *words, log=tmp_path / "log")
    assert result.code == 1
    assert "Traceback" not in result.output
    assert message in result.output.splitlines()[-1]


def test_faults_of_the_program_keep_their_traceback():
    for fault in (TypeError, KeyError, NotImplementedError):
        with pytest.raises(fault), plain_errors():
            raise fault("x")


def test_a_closed_pipe_ends_a_command_silently(tmp_path):
    (tmp_path / "r.csv").write_text("image,caption\n1.jpg,a dog\n2.jpg,a cat\n")
    rows = [{"image_id": 1, "caption": "a dog"}, {"image_id": 2, "caption": "a cat"}]
    (tmp_path / "c.json").write_text(json.dumps(rows))
    command = [sys.executable, "tools/score.py", tmp_path / "c.json", tmp_path / "r.csv"]
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "Broken pipe" not in result.stderr
