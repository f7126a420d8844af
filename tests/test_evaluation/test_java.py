"""METEOR, SPICE and the Java tokenizer, with and without Java."""

import logging
import os
import shutil
import stat
import sys

import pytest
from pycocoevalcap.meteor.meteor import Meteor

from pcm_plugin.evaluation import CaptionMetric, java
from pcm_plugin.evaluation.ptb_tokenizer import ptb_tokenize
from tests.test_evaluation.test_caption_metric import REFERENCES

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="there is no Java here")
CAPTIONS = {7: "A dog's running, isn't it?", 8: "two cars", 9: "people ride horses"}


def score(**settings):
    metric = CaptionMetric(prefix="", **settings)
    samples = [
        {"image_id": i, "pred_caption": CAPTIONS[i], "gt_caption": texts}
        for i, texts in REFERENCES.items()
    ]
    metric.process(None, samples)
    return metric.evaluate(3)


@needs_java
def test_meteor_equals_pycocoevalcap(monkeypatch):
    tokens = {i: [" ".join(ptb_tokenize(text))] for i, text in CAPTIONS.items()}
    references = {i: [" ".join(ptb_tokenize(t)) for t in own] for i, own in REFERENCES.items()}
    expected, each = Meteor().compute_score(references, tokens)
    meteor, calls = java.meteor, []

    def spy(*texts):
        calls.append((texts, meteor(*texts)))
        return calls[-1][1]

    monkeypatch.setattr(java, "meteor", spy)
    assert score(scorers=["METEOR"])["METEOR"] == pytest.approx(100 * expected, abs=1e-9)
    ((texts, found),) = calls
    assert texts == ([*references.values()], [text for (text,) in tokens.values()])
    assert found == (expected, each)


@needs_java
def test_the_java_tokenizer_agrees_and_leaves_no_files(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert score(tokenizer="ptb-java") == score()
    texts = [*CAPTIONS.values(), "", "a line\u2028end", "caf\u00e9"]
    found = java.tokenize_with_java(texts)
    assert found == [ptb_tokenize(" ".join(text.splitlines())) for text in texts]
    assert java.tokenize_with_java([]) == []
    assert not list(tmp_path.iterdir())


@needs_java
def test_a_failure_of_meteor_is_logged_and_does_not_hang(monkeypatch, logged):
    monkeypatch.setattr("pycocoevalcap.meteor.meteor.METEOR_JAR", "nowhere.jar")
    scores = score(scorers=["METEOR", "BLEU"])
    assert scores["METEOR"] != scores["METEOR"]  # NaN
    assert scores["BLEU-1"] > 0
    assert "scorer METEOR failed" in logged.text


def test_without_java_a_warning_is_logged_and_other_scores_are_computed(
    monkeypatch, logged, tmp_path
):
    monkeypatch.setenv("PATH", str(tmp_path))
    scores = score(scorers=["BLEU", "METEOR", "SPICE"])
    assert set(scores) == {"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"}
    lines = [r.getMessage() for r in logged.records if r.levelno == logging.WARNING]
    assert [line.split()[0] for line in lines] == ["METEOR", "SPICE"]
    assert all("apt install default-jre-headless" in line for line in lines)
    with pytest.raises(ValueError, match="`java` is not on the PATH"):
        CaptionMetric(tokenizer="ptb-java")


def make_java(folder, script):
    """Create a program named java that is a Python script."""
    path = folder / "java"
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


SPICE = """
import json, sys
rows = json.load(open(sys.argv[4]))
out = sys.argv[sys.argv.index("-out") + 1]
score = lambda row: {"All": {"f": len(row["test"].split()) / 10}}
json.dump([{"image_id": r["image_id"], "scores": score(r)} for r in reversed(rows)], open(out, "w"))
"""


def test_spice_runs_in_the_folder_of_its_files(tmp_path, monkeypatch, logged):
    # CoreNLP's files (400 MB) are not available: only the call of the program is tested.
    programs, files, temporary = (tmp_path / name for name in ("bin", "spice", "tmp"))
    for folder in (programs, files / "lib", temporary):
        folder.mkdir(parents=True)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(java, "_folder", lambda part: tmp_path / part)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    make_java(programs, SPICE)
    assert "SPICE" not in score(scorers=["SPICE", "BLEU"])
    assert "stanford-corenlp-3.6.0-models.jar" in logged.text
    for name in ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar"):
        (files / "lib" / name).touch()
    words = [len(ptb_tokenize(text)) for text in CAPTIONS.values()]
    assert score(scorers=["SPICE"])["SPICE"] == pytest.approx(10 * sum(words) / 3)
    make_java(programs, "import sys; sys.exit('no such class')")
    logged.clear()
    assert score(scorers=["SPICE", "BLEU"])["BLEU-1"] > 0
    assert "scorer SPICE failed: RuntimeError" in logged.text
    assert "no such class" in logged.text
    assert not list(temporary.iterdir())
