"""The datasets work where Python has no POSIX modules, as on Windows."""

import subprocess
import sys

from tests.builders import build_store

SCRIPT = """
import os
import sys

for name in ("fcntl", "resource"):
    sys.modules[name] = None  # importing it raises ImportError
for name in ("preadv", "posix_fadvise", "RWF_NOWAIT"):
    delattr(os, name)

from pcm_plugin.datasets import SynthCaptionDataset

dataset = SynthCaptionDataset(sys.argv[1])
items = dataset.__getitems__([0, 3, 1])
print([item["data_samples"].gt_caption for item in items])
print(float(sum(item["patch_feats"].float().sum() for item in items)))
"""


def test_datasets_are_read_without_posix_modules(tmp_path):
    path = tmp_path / "store"
    given = build_store(path, [["a dog"], ["a cat", "the cat"], ["a car"]])
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(path)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    captions, total = result.stdout.splitlines()
    assert captions == "['a dog', 'a car', 'a cat']"
    patches = given["patch_feats"][[0, 2, 1]].float()
    assert abs(float(total) - float(patches.sum())) < 1e-3
