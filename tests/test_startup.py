"""What commands import before their work starts, and what captioning imports."""

import subprocess
import sys

import pytest

from pcm_plugin import cli
from pcm_plugin.models.functional import pooling
from pcm_plugin.synthesis.refine import settings

HEAVY = (
    *("torch", "torchvision", "mmengine", "mmpretrain", "open_clip", "timm", "diffusers"),
    *("transformers", "matplotlib", "gradio", "pandas", "scipy", "PIL"),
)
MISSING_ARGUMENTS = ("caption", "make-dataset", "extract", "train", "score", "webui")

RUN = """
import sys
from pcm_plugin import cli
try:
    cli.main({words!r})
except SystemExit as end:
    assert end.code == {code}, end.code
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
    done = run(
        ["caption", "pcm-net_toy", "missing.jpg"],
        "'no such file or folder: missing.jpg'",
        HEAVY[:-1],
    )
    assert done.returncode == 0, done.stderr


def test_the_poolings_of_the_command_are_those_of_the_function():
    assert settings.POOLINGS == pooling.POOLINGS
