"""``pcm tune`` in this process, with the captions of a search that is replaced."""

import json
import shlex
import shutil
import sys

import pytest
import torch
from mmengine.config import Config
from safetensors import safe_open

from pcm_plugin.commands import export, tune
from pcm_plugin.commands.tuning import Candidates
from pcm_plugin.engine.inputs import drop_clip_head
from pcm_plugin.errors import UserError
from pcm_plugin.evaluation import CaptionMetric
from pcm_plugin.models.captioner_settings import write_decoding
from pcm_plugin.models.decoding import CaptionHypothesis
from pcm_plugin.registry import MODELS
from tests.builders import build_store

REFERENCES = [["一只狗在公园里", "公园里有狗"], ["两只猫在桌子上", "桌上有猫"], ["一辆红色的汽车"]]
SHORT = ["狗在公园里", "一只猫", "红色的汽车"]
LONG = ["一只狗在公园里", "两只猫在桌子下", "一辆蓝色的汽车"]
SIZES = {"num_patches": 4, "patch_dim": 12, "clip_dim": 8}


@pytest.fixture
def run(tiny_settings, tmp_path, monkeypatch, capsys):
    """Return a function that tunes a captioner for Chinese: exit code, output and table."""
    cfg = Config.fromfile("configs/pcm_coco.py")
    cfg.merge_from_dict(tiny_settings)
    cfg.val_dataloader.dataset.store = str(tmp_path / "real")
    cfg.val_dataloader.dataset.data_prefix = None
    cfg.val_evaluator = {"type": "pcm_plugin.CaptionMetric", "language": "zh"}

    def search(model, batches, searches):
        images = [
            {"image_id": sample.image_id, "gt_caption": sample.gt_caption}
            for batch in batches
            for sample in batch["data_samples"]
        ]
        found = Candidates(images, {})
        for decoding in searches:
            texts = SHORT if decoding.beam_size == 1 else LONG
            found.captions[decoding] = [[CaptionHypothesis(text, -1.0)] for text in texts]
        return found

    monkeypatch.setattr("pcm_plugin.commands.tuning.search_candidates", search)

    def run(*words, references=REFERENCES, **settings):
        shutil.rmtree(tmp_path / "real", ignore_errors=True)
        build_store(tmp_path / "real", references, **SIZES)
        changed = Config(cfg.to_dict())
        changed.merge_from_dict(settings)
        config, weights = tmp_path / "config.py", tmp_path / "weights.pth"
        changed.dump(config)
        if not weights.exists():
            drop_clip_head(changed)
            torch.manual_seed(0)
            torch.save({"state_dict": MODELS.build(changed.model).state_dict()}, weights)
        table = tmp_path / "table.json"
        args = [config, weights, "--rerank-weights", 0, "--beam-sizes", 1, 2, "--device", "cpu"]
        args = ["tune", *args, "--out", table, *words]
        monkeypatch.setattr(sys, "argv", [*map(str, args)])
        message = ""
        try:
            tune.main()
        except SystemExit as error:
            message = str(error.code)
        printed = capsys.readouterr()
        rows = json.loads(table.read_text()) if table.exists() else []
        output = printed.out + printed.err + message
        return int(bool(message)), output, {row["beam_size"]: row for row in rows}

    return run


def expected(captions, **settings):
    metric = CaptionMetric(prefix="", **settings)
    pairs = enumerate(zip(captions, REFERENCES, strict=True))
    metric.process(
        None, [{"image_id": i, "pred_caption": c, "gt_caption": r} for i, (c, r) in pairs]
    )
    return metric.evaluate(len(captions))


def test_the_language_is_that_of_the_metric(run):
    code, output, rows = run()
    assert code == 0, output
    assert "tokens: zh, characters" in output
    for beam_size, captions in ((1, SHORT), (2, LONG)):
        scores = expected(captions, language="zh")
        english = expected(captions)
        for name in ("CIDEr", "BLEU-4", "ROUGE-L"):
            assert rows[beam_size][name] == pytest.approx(scores[name])
        assert abs(scores["CIDEr"] - english["CIDEr"]) > 1


def test_the_language_is_found_in_a_list_of_metrics(run):
    metrics = [{"type": "pcm_plugin.CaptionMetric", "language": "zh", "prefix": "x"}]
    code, output, rows = run(val_evaluator=metrics)
    assert code == 0, output
    assert rows[1]["CIDEr"] == pytest.approx(expected(SHORT, language="zh")["CIDEr"])


def test_a_wrong_language_is_reported_before_the_search(run, monkeypatch):
    monkeypatch.setattr("pcm_plugin.commands.tuning.search_candidates", None)
    code, output, _ = run(**{"val_evaluator.language": "chinese"})
    assert code == 1
    assert "`language` must be a code of ISO 639" in output


def test_undefined_scores_choose_nothing(run):
    # CIDEr is undefined if all images have the same references.
    code, output, rows = run("--metric", "BLEU-4", references=[["有狗"]] * 3)
    assert code == 0, output
    assert [row["CIDEr"] for row in rows.values()] == [None, None]
    code, output, _ = run(references=[["有狗"]] * 3)
    assert code == 1
    assert "--metric CIDEr must be a number for all settings of the search, got NaN for 2 of 2" in (
        output
    )
    assert "CIDEr is undefined" in output
    assert "to use the best settings" not in output


@pytest.fixture
def exported(run, tmp_path, monkeypatch):
    """Return a function that exports the captioner, and returns its file."""

    def exported(*options, seed=0):
        run()
        if seed:
            state = torch.load(tmp_path / "weights.pth")["state_dict"]
            changed = {k: v + 0.01 if v.is_floating_point() else v for k, v in state.items()}
            torch.save({"state_dict": changed}, tmp_path / "other.pth")
        file = tmp_path / "captioner.safetensors"
        weights = tmp_path / ("other.pth" if seed else "weights.pth")
        args = ["export", tmp_path / "config.py", weights, "--out", file, *options]
        monkeypatch.setattr(sys, "argv", [*map(str, args)])
        export.main()
        return file

    return exported


SETTINGS = ["model.decoding.max_len=12", "model.decoding.exclude=[猫, 大 象]"]


@pytest.mark.parametrize("half", [[], ["--half"]])
def test_the_best_settings_are_written_to_the_captioner_that_was_tuned(run, exported, half):
    file = exported("--cfg-options", *SETTINGS, "model.decoding.beam_size=7", *half)
    code, output, rows = run("--write", file, "--cfg-options", *SETTINGS)
    assert code == 0, output
    best = max(rows, key=lambda size: rows[size]["CIDEr"])
    decoding = json.loads(safe_open(file, "pt").metadata()["model"])["decoding"]
    assert decoding["beam_size"] == best
    assert decoding["max_len"] == 12


@pytest.mark.parametrize(
    ("options", "seed", "tuned", "difference"),
    [
        ([], 1, [], "'decoder."),
        ([], 0, SETTINGS[:1], "'model.decoding.max_len=20 instead of 12'"),
        (SETTINGS[1:], 0, [], "\"model.decoding.exclude=('猫', '大 象') instead of ()\""),
        ([], 0, ["model.neck.top_concepts=3"], "'model.neck'"),
    ],
)
def test_settings_are_not_written_to_another_captioner(
    run, exported, monkeypatch, options, seed, tuned, difference
):
    file = exported(*(["--cfg-options", *options] if options else []), seed=seed)
    before = file.read_bytes()
    monkeypatch.setattr("pcm_plugin.commands.tuning.search_candidates", None)
    words = ["--cfg-options", *tuned] if tuned else []
    code, output, _ = run("--write", file, *words)
    assert code == 1
    assert "must hold the captioner of this config and checkpoint, but it has other" in output
    assert difference in output
    assert file.read_bytes() == before


def test_the_printed_command_exports_what_was_tuned(run, tmp_path, monkeypatch):
    options = [*SETTINGS, "model.decoding.beam_size=7", "val_dataloader.batch_size=2"]
    code, output, rows = run("--cfg-options", *options)
    assert code == 0, output
    best = max(rows, key=lambda size: rows[size]["CIDEr"])
    line = next(line for line in output.splitlines() if line.startswith("  pcm export"))
    words = shlex.split(line)[1:]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", words)
    export.main()
    metadata = safe_open("captioner.safetensors", "pt").metadata()
    decoding = json.loads(metadata["model"])["decoding"]
    assert decoding == {
        "beam_size": best,
        "exclude": ["猫", "大 象"],
        "length_penalty": 0.0,
        "max_len": 12,
        "rerank": "sum",
        "rerank_weight": 0.0,
    }


def test_beam_sizes_below_the_number_of_captions_are_refused(run):
    options = ["model.decoding.num_captions=2", "model.decoding.beam_size=2"]
    code, output, _ = run("--cfg-options", *options)
    assert code == 1
    assert "`num_captions` must be from 1 to beam_size=1, got `2`" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["rerank=ranks", "rerank_weight=400"], "`rerank_weight` has no effect with rerank='ranks"),
        (["rerank_clip=RN50"], "`rerank_clip` has no effect with rerank='sum'"),
        (["include=[zebra]"], "zebra"),
    ],
)
def test_no_captioner_is_exported_that_cannot_be_used(exported, tmp_path, options, message):
    with pytest.raises(SystemExit, match=message):
        exported("--cfg-options", *(f"model.decoding.{option}" for option in options))
    assert not (tmp_path / "captioner.safetensors").exists()


def test_a_stored_weight_and_ranks_replace_each_other(exported):
    file = exported("--cfg-options", "model.decoding.beam_size=5")

    def stored(settings):
        write_decoding(file, settings)
        return json.loads(safe_open(file, "pt").metadata()["model"])["decoding"]

    weight = stored({"rerank": "sum", "rerank_weight": 400.0})
    assert (weight["rerank"], weight["rerank_weight"]) == ("sum", 400.0)
    assert stored({"rerank": "ranks"}) == {**weight, "rerank": "ranks", "rerank_weight": 0.0}
    assert stored({"rerank_weight": 400.0}) == weight
    before = file.read_bytes()
    with pytest.raises(UserError, match="`beam_size` must be at least 1"):
        write_decoding(file, {"beam_size": 0})
    assert file.read_bytes() == before
