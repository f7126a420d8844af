"""pcm paper-table and its tables."""

import json
import re
import sys
from functools import reduce
from types import SimpleNamespace

import pytest
from mmengine.config import Config

from pcm_plugin.commands import paper_runs, paper_table
from pcm_plugin.commands.evaluation_names import list_evaluations
from pcm_plugin.commands.paper_tables import TABLES
from pcm_plugin.commands.paper_trainings import TRAININGS, training_of
from pcm_plugin.commands.runs import read_config
from pcm_plugin.engine.config_files import find_config
from pcm_plugin.engine.resumable_loop import is_due
from pcm_plugin.models.necks.patch_selection import PatchSelection
from pcm_plugin.registry import DATASETS, MODELS
from tests.test_tools import commands

ROWS = [pytest.param(t, row, id=f"{n}: {row.title}") for n, t in TABLES.items() for row in t.rows]


@pytest.mark.parametrize(("table", "row"), ROWS)
def test_rows_name_existing_configs_and_evaluations(table, row):
    assert row.has_config or row.published
    assert row.eval_on in (None, *list_evaluations())
    if row.published:
        assert table.published(row)
        assert row.published.source


def test_titles_and_trainings_are_unique():
    for table in TABLES.values():
        titles = [row.title for row in table.rows]
        assert len(set(titles)) == len(titles)
    used = {row.training for table in TABLES.values() for row in table.rows}
    assert set(TRAININGS) <= used
    assert len({(t.config, t.options) for t in TRAININGS.values()}) == len(TRAININGS)
    # The training of an unchanged config has no second name.
    assert all(training.options for training in TRAININGS.values())


def tiny_options(tiny_settings, **more):
    settings = {**tiny_settings, "train_cfg.max_epochs": 1, **more}
    return [f"{key}={value}" for key, value in settings.items()]


@pytest.mark.parametrize("name", TRAININGS)
def test_every_training_applies_its_options(name, tiny_settings):
    training = training_of(name)
    config = find_config(training.config)
    # Four patches and one concept have fewer than five pairs.
    more = {"model.neck.num_patches": 49}
    options = [*tiny_options(tiny_settings, **more), *training.options]
    cfg = read_config(config, options, ("train", "val"))
    model = MODELS.build(cfg.model)
    matcher = model.neck.matcher
    selection = PatchSelection("none") if matcher is None else matcher.selection
    built = {
        "model.neck.selection": lambda: selection.rule,
        "model.neck.num_pairs": lambda: selection.num_pairs,
        "model.neck.random_ratio": lambda: selection.random_ratio,
        "model.neck.top_concepts": lambda: model.neck.concept_bank.top_concepts,
        "model.loss.use_clip_weight": lambda: model.loss_module.use_clip_weight,
        "model.loss.gamma_type": lambda: model.loss_module.gamma_type,
        "model.loss.clip_weight": lambda: model.loss_module.clip_weight,
        "train_dataloader.dataset.max_pairs": lambda: None,
        "train_cfg.max_epochs": lambda: None,
        "train_cfg.val_interval": lambda: None,
    }
    own = Config.fromfile(config)
    for option in training.options:
        key, text = option.split("=")
        value = reduce(lambda part, k: part.get(k), key.split("."), cfg)
        assert str(value) == text
        assert value != reduce(lambda part, k: part.get(k), key.split("."), own)
        assert built[key]() in (value, None)
    share = cfg.train_dataloader.dataset.get("max_pairs")
    if share is not None:
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        cfg.train_dataloader.dataset.max_pairs = None
        assert len(dataset) == round(share * len(DATASETS.build(cfg.train_dataloader.dataset)))


@pytest.mark.parametrize(("config", "pairs"), [("pcm_coco", 542_401), ("pcm_toy", 3000)])
def test_a_share_of_the_pairs_has_as_many_iterations_and_validations(config, pairs):
    own = Config.fromfile(find_config(config))
    loader, loop = own.train_dataloader, own.train_cfg
    shares = [name for name in TRAININGS if name.startswith(f"{config}_pairs")]
    assert len(shares) == 5

    def count(pairs, max_epochs, val_interval):
        batches = pairs // loader.batch_size + (pairs % loader.batch_size > 0) * (
            not loader.drop_last
        )
        return batches * max_epochs, sum(is_due(e, val_interval) for e in range(1, max_epochs + 1))

    iterations, validations = count(pairs, loop.max_epochs, loop.val_interval)
    for name in shares:
        options = dict(option.split("=") for option in TRAININGS[name].options)
        chosen = round(float(options["train_dataloader.dataset.max_pairs"]) * pairs)
        epochs = int(options["train_cfg.max_epochs"])
        counted = count(chosen, epochs, float(options["train_cfg.val_interval"]))
        if config == "pcm_coco":
            assert counted == (iterations, validations) == (12 * 16_950, 12)
        else:
            assert counted[0] == pytest.approx(iterations, rel=0.07)
            assert counted[1] == validations


@pytest.fixture
def table(tmp_path, tiny_settings, monkeypatch, capsys):
    """Function that runs the command on tiny data and returns its exit code and output."""

    def run_command(words, **_):
        log = tmp_path / "tool.log"
        result = commands.run(*words[3:], log=log, launcher=False)
        return SimpleNamespace(returncode=result.code)

    monkeypatch.setattr(paper_runs.subprocess, "run", run_command)

    def table(*words, **more):
        options = tiny_options(tiny_settings, **more)
        command = [*words, "--run-dir", str(tmp_path / "runs"), "--cfg-options", *options]
        monkeypatch.setattr(sys, "argv", ["paper-table", *map(str, command)])
        with pytest.raises(SystemExit) as end:
            paper_table.main()
        return end.value.code, capsys.readouterr().out

    return table


TWO = ("toy", "--rows", "town: PCM-Net", "town -> country: *")


def test_rows_are_trained_scored_and_reused(table, tmp_path):
    out = tmp_path / "out" / "toy.json"
    code, output = table(*TWO, "town: CapDec")
    assert code == 0
    assert output.count("no weights in") == 2
    assert "pcm train configs/capdec/capdec_toy.py --resume" in output
    assert "$" not in output

    code, output = table(*TWO, "--train", "--out", out)
    assert code == 0, (tmp_path / "tool.log").read_text()
    assert re.findall(r"^\$ pcm (\w+)", output, re.M) == ["train", "test", "test"]
    rows = json.loads(out.read_text())
    assert [row["title"] for row in rows] == ["town: PCM-Net", "town -> country: PCM-Net"]
    for row, test in zip(rows, ("in_domain", "toy_country"), strict=True):
        kept = tmp_path / "runs" / "pcm_toy" / "test" / test
        assert row["ours"] == json.loads((kept / "metrics.json").read_text())
        assert json.loads((kept / "captions.json").read_text())
        cells = [f"{row['ours']['metrics'][f'caption/{m}']:.1f} / -" for m in ("BLEU-4", "CIDEr")]
        (line,) = [x for x in output.splitlines() if x.startswith(f"| {row['title']} |")]
        assert line.startswith(f"| {row['title']} | {cells[0]} |")
        assert line.endswith(f" {cells[1]} | - |")
    assert "Not run" not in output

    code, again = table(*TWO, "--train")
    assert (code, "$" in again) == (0, False)
    assert again == output[output.index("###") :]
    # A training with other settings is not used for the row.
    for words in ((), ("--train",)):
        code, output = table(*TWO, *words, **{"train_cfg.max_epochs": 2})
        assert output.count("contains a training with other settings or data") == 1
        assert "Ours are of" not in output


def test_given_weights_and_failures(table, tmp_path):
    code, output = table(*TWO, "--checkpoint", "pcm_toy=nowhere.pth")
    assert (code, "checkpoint nowhere.pth does not exist" in output) == (0, True)
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"nothing")
    code, output = table(*TWO, "--checkpoint", f"pcm_toy={broken}")
    assert code == 1
    assert output.count("failed with exit code 1, see") == 2
    code, _ = table(*TWO, "--checkpoint", "pcm_coco=x.pth")
    assert "has no training ['pcm_coco']" in code
    code, _ = table("toy", "--rows", "village")
    assert "no row of toy is called village" in code


def test_missing_data_are_reported(table):
    ours = ("nocaps", "--rows", "PCM-Net*")
    code, output = table(*ours, **{"test_dataloader.dataset.store": "nowhere"})
    assert code == 0
    assert "missing: nowhere" in output
    code, output = table("in-domain", "--rows", "COCO: IFCap")
    assert code == 0
    assert "| COCO: IFCap | - / 30.8 | - / 26.7 | - | - / 108.0 | - / 20.3 | Lee et al." in output
    assert "this project has no config of this system" in output


def test_the_list_prints_the_commands(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["paper-table"])
    paper_table.main()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(TABLES)
    monkeypatch.setattr(sys, "argv", ["paper-table", "ablation", "--list", "--scorers", "BLEU"])
    paper_table.main()
    output = capsys.readouterr().out
    for row in TABLES["ablation"].rows:
        assert f"\n{row.title}\n" in output
    assert "configs/pcm_coco_vitl14.py CHECKPOINT --work-dir" in output
    assert "'test_evaluator.scorers=[BLEU]'" in output
