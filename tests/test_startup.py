"""Imports of commands before their work starts, and imports of captioning."""

import subprocess
import sys

import pytest
from PIL import Image

from pcm_plugin import cli
from pcm_plugin.models.functional import pooling
from pcm_plugin.synthesis.refine import settings

HEAVY = (
    *("torch", "torchvision", "mmengine", "mmpretrain", "open_clip", "timm", "diffusers"),
    *("transformers", "matplotlib", "gradio", "pandas", "scipy"),
)
NOT_FOR_CAPTIONS = (
    *("open_clip", "torchvision", "timm", "diffusers", "matplotlib", "gradio", "pandas"),
    *("scipy", "textblob", "nltk", "pycocoevalcap", "ijson", "pyarrow"),
)
MISSING_ARGUMENTS = ("caption", "make-dataset", "extract", "train", "score", "webui")

RUN = """
import sys
from pcm_plugin import cli
code = None
try:
    cli.main({words!r})
except SystemExit as end:
    code = end.code
assert code == {code!r}, code
found = sorted(name for name in {modules!r} if name in sys.modules)
assert not found, found
"""


def run(words, code, modules):
    script = RUN.format(words=words, code=code, modules=modules)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_help_of_a_command_imports_no_heavy_library(name):
    done = run([name, "--help"], 0, HEAVY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: pcm")


@pytest.mark.parametrize("name", MISSING_ARGUMENTS)
def test_usage_errors_are_reported_before_heavy_imports(name):
    done = run([name], 2, HEAVY)
    assert done.returncode == 0, done.stderr
    assert f"usage: pcm {name}" in done.stderr


def test_an_image_that_does_not_exist_is_reported_before_heavy_imports():
    message = "no such file or folder: missing.jpg"
    done = run(["caption", "pcm-net_toy", "missing.jpg"], message, HEAVY)
    assert done.returncode == 0, done.stderr


def test_captioning_imports_only_what_it_needs(tmp_path):
    Image.new("RGB", (112, 112), "red").save(tmp_path / "x.png")
    done = run(["caption", "pcm-net_toy", str(tmp_path / "x.png")], None, NOT_FOR_CAPTIONS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "x.png"))


def test_the_poolings_of_the_command_are_those_of_the_function():
    assert settings.POOLINGS == pooling.POOLINGS
