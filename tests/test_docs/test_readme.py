"""The first command of the README works in a fresh checkout."""

import shlex

from tests.test_docs.pages import ROOT, code_blocks
from tests.test_tools.commands import run

EXAMPLES = ROOT / "docs" / "images" / "examples"


def test_the_packaged_captioner_captions_the_examples(tmp_path):
    lines = "\n".join(code_blocks(ROOT / "README.md")).splitlines()
    line = next(line for line in lines if "tools/caption.py pcm-net_toy" in line)
    _, _, *words = shlex.split(line)
    words[words.index("--sheet") + 1] = str(tmp_path / "sheet.png")
    result = run("caption.py", *words, log=tmp_path / "log", launcher=False)
    assert result.code == 0, result.output
    captions = dict(row.split("\t") for row in result.output.splitlines() if "\t" in row)
    assert len(captions) == len([*EXAMPLES.glob("*.png")])
    assert captions["docs/images/examples/town_test_00006.png"] == "a dog in the city"
    assert (tmp_path / "sheet.png").stat().st_size > 100_000
