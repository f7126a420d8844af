"""The whole road, as ``make demo`` walks it, with few captions and one epoch."""

import json
import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

DEMO = Path(__file__).parents[2] / "tools" / "toyworld" / "demo.py"


def walk(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(DEMO), "--quick", "--processes", "1"],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def test_the_demo_goes_from_sentences_to_scores_and_reuses_what_is_there(tmp_path):
    said = walk(tmp_path)
    assert "town (in-domain)" in said
    assert "country (cross-domain)" in said
    assert said.count("reference:") == 30
    work = tmp_path / "work_dirs" / "pcm_toy"
    with Image.open(work / "contact_sheet.png") as sheet:
        assert min(sheet.size) > 500
    for config in ("pcm_toy", "pcm_toy_town2country"):
        captions = json.loads((work / "test" / config / "captions.json").read_text())
        assert len(captions) == 20
        metrics = json.loads((work / "test" / config / "metrics.json").read_text())["metrics"]
        assert {"caption/BLEU-4", "caption/ROUGE-L", "caption/CIDEr"} <= set(metrics)
    made = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("shard-*")}
    assert made
    again = walk(tmp_path)
    assert (
        again.split("real test images of")[1].split("took")[0]
        == (said.split("real test images of")[1].split("took")[0])
    )
    assert "train.py" not in again
    assert made == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("shard-*")}
