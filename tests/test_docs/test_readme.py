"""The first command of the README works in a fresh checkout; its figures have a source."""

import re
import shlex

import yaml

from tests.test_docs.pages import ROOT, code_blocks
from tests.test_tools.commands import run

EXAMPLES = ROOT / "docs" / "images" / "examples"


def test_the_packaged_captioner_captions_the_examples(tmp_path):
    lines = "\n".join(code_blocks(ROOT / "README.md")).splitlines()
    line = next(line for line in lines if "pcm caption pcm-net_toy" in line)
    _, _, *words = shlex.split(line)
    words[words.index("--sheet") + 1] = str(tmp_path / "sheet.png")
    result = run("caption", *words, log=tmp_path / "log", launcher=False)
    assert result.code == 0, result.output
    captions = dict(row.split("\t") for row in result.output.splitlines() if "\t" in row)
    assert len(captions) == len([*EXAMPLES.glob("*.png")])
    assert captions["docs/images/examples/town_test_00006.png"] == "a cake and a dog on a street"
    assert (tmp_path / "sheet.png").stat().st_size > 100_000


def test_published_scores_are_those_of_the_metafiles():
    page = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| (.+) \| \[.*\]\((.+)/README.md\) \| (.+) \| (.+) \|$", page, re.M)
    assert len(rows) >= 7
    for system, folder, *scores in rows:
        metafile = yaml.safe_load((ROOT / folder / "metafile.yml").read_text())
        suffix = "_vitl14" if "ViT-L/14" in system else ""
        for data, score in zip(("coco", "flickr30k"), scores, strict=True):
            published = [
                result["Metrics"]["CIDEr"]
                for model in metafile["Models"]
                if re.fullmatch(rf"[a-z]+(_text)?_{data}{suffix}", model["Name"])
                for result in model.get("Published Results", [])
                if "Evaluation" not in result
            ]
            assert score == (str(published[0]) if published else "-"), f"{system}, {data}"
