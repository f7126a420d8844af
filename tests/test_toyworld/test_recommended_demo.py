"""Tests of ``make demo`` with the recommended recipe, in this process."""

import contextlib
import glob
import json
import sys

import pytest

from pcm_plugin import cli
from pcm_plugin.apis import CaptionInferencer
from pcm_plugin.commands.toyworld import demo, recommended_demo, steps


def run_here(command, done=None, processes=1, log=None):
    assert processes == 1
    words = [w for word in map(str, command) for w in sorted(glob.glob(word)) or [word]]
    print("$ pcm", words[0])
    with contextlib.ExitStack() as stack:
        if log:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(log.open("w"))))
        cli.main(words)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recommended")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(recommended_demo, "run", run_here)
        patch.setattr(sys, "argv", ["pcm demo", "--quick", "--processes", "1"])
        demo.main()
    return folder


def test_the_demo_chooses_the_settings_and_scores_real_images(folder):
    work = folder / "work_dirs" / "recommended_toy"
    config = (folder / "data/toy/recommended_toy/config.py").read_text()
    assert "selection='none'" in config
    inferencer = CaptionInferencer(weights=work / "captioner.safetensors", device="cpu")
    assert inferencer.model.decoding.beam_size == 5
    for domain in ("town", "country"):
        captions = json.loads((work / f"{domain}_captions.json").read_text())
        assert [entry["image_id"] for entry in captions] == [
            f"{domain}_test_{n:05}" for n in range(20)
        ]
        assert {"BLEU-4", "ROUGE-L", "CIDEr"} <= json.loads(
            (work / f"{domain}_scores.json").read_text()
        ).keys()
    # The report measures the captioner on photos without captions.
    assert "Captions of photos without references" in (work / "report.html").read_text()


def test_a_finished_demo_only_shows_its_results(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(recommended_demo, "run", run_here)
    monkeypatch.setattr(sys, "argv", ["pcm demo", "--quick", "--processes", "1"])
    demo.main()
    output = capsys.readouterr().out
    assert "$ pcm make-dataset" in output  # it keeps what is finished
    assert output.count("$ pcm") == 1
    assert output.count("reference:") == 30
    assert "town (in-domain)" in output


def test_patterns_are_expanded_as_by_a_shell(tmp_path, monkeypatch, capsys):
    commands = []

    def run(command, **options):
        commands.append((command, options["stdout"].name))
        return steps.subprocess.CompletedProcess(command, 0)

    for name in ("b c.png", "a.png", "other.jpg"):
        (tmp_path / name).touch()
    monkeypatch.setattr(steps.subprocess, "run", run)
    log = tmp_path / "log.txt"
    steps.run(["caption", "my file", tmp_path / "*.png"], log=log)
    [(command, output)] = commands
    images = [str(tmp_path / name) for name in ("a.png", "b c.png")]
    assert command[-4:] == ["caption", "my file", *images]
    assert output == str(log)
    assert f"$ pcm caption 'my file' {tmp_path}/*.png > {log}\n" in capsys.readouterr().out
