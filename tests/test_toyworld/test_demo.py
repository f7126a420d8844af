"""Tests of the pipeline of ``make demo``, with few captions and one epoch."""

import copy
import functools
import inspect
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from PIL import Image

from pcm_plugin import cli
from pcm_plugin.apis import CaptionInferencer
from pcm_plugin.commands import runs
from pcm_plugin.commands.evaluations import apply_evaluation
from pcm_plugin.commands.toyworld import arms, steps
from pcm_plugin.commands.toyworld import published_demo as tool
from pcm_plugin.engine import AverageWeightsHook
from pcm_plugin.engine.cfg_options import parse_value
from pcm_plugin.engine.inputs import TEST_KEYS, hash_settings
from pcm_plugin.engine.work_folder import require_best_checkpoint
from pcm_plugin.errors import UserError
from pcm_plugin.models.backbones import OpenCLIPBackbone
from pcm_plugin.models.decoding import DecodingConfig
from pcm_plugin.registry import DATASETS, MODELS
from tests.browser import check_page, open_browser
from tests.mmpretrain_models import import_error
from tests.site_packages import build_site, run_in_site
from tests.test_tools.commands import run, run_script

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "pcm_toy.py"


def run_command(folder: Path, name: str, *args: str, code: int = 0) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        log = folder / "log.txt"
        result = run(name, "--quick", *args, log=log, launcher=False, timeout=500, forks=True)
    assert result.code == code, result.output[-4000:]
    return result.output


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Return the folder and the output of a first run with two processes."""
    folder = tmp_path_factory.mktemp("my demo")
    return folder, run_command(folder, "demo", "--recipe", "toy", "--processes", "2")


@functools.cache
def _config(path):
    return Config.fromfile(path)


def read_config(name):
    """Return the config of an arm; many arms have the same."""
    return copy.deepcopy(_config(arms.config_of(name)))


def scores_of(output):
    return output.split("real test images")[1].split("time:")[0]


def test_the_demo_prints_captions_and_scores(demo):
    folder, output = demo
    assert "town (in-domain)" in output
    assert "country (cross-domain)" in output
    assert output.count("reference:") == 30
    assert "$ pcm build-vocabulary data/toy/town/captions" in output
    work = folder / "work_dirs" / "pcm_toy"
    with Image.open(work / "contact_sheet.png") as sheet:
        assert min(sheet.size) > 500
    for test in ("in_domain", "toy_country"):
        captions = json.loads((work / "test" / test / "captions.json").read_text())
        assert len(captions) == 20
        metrics = json.loads((work / "test" / test / "metrics.json").read_text())["metrics"]
        assert {"caption/BLEU-4", "caption/ROUGE-L", "caption/CIDEr"} <= set(metrics)


def test_the_demo_writes_a_report_and_a_captioner(demo, tmp_path):
    folder, output = demo
    work = folder / "work_dirs" / "pcm_toy"
    page = (work / "report.html").read_text()
    # All twenty test images, and the six pairs with the lowest and highest CLIP scores.
    assert page.count('<div class="card">') == 20 - 2 + 12
    assert page.count("<svg") == 3
    assert "gray squares" not in page
    assert "test/toy_country" in page
    inferencer = CaptionInferencer(weights=work / "captioner.safetensors", device="cpu")
    file = folder / "data/toy/town/images/town_test_00000.png"
    caption = inferencer(file)["predictions"][0]["caption"]
    assert f"town_test_00000: {caption}\n" in output
    with open_browser(tmp_path) as browser:
        check_page(browser, work / "report.html")


def test_the_demo_skips_finished_steps_only(demo):
    folder, output = demo
    made = {p: p.stat().st_mtime_ns for p in folder.rglob("shard-*")}
    assert made
    # State after a kill at the start of an extraction.
    store = folder / "data/toy/country/test_store"
    manifest = json.loads((store / "manifest.json").read_text())
    (store / "manifest.json").write_text(json.dumps(manifest | {"shards": {}, "info": {}}))
    again = run_command(folder, "demo", "--recipe", "toy", "--processes", "1")
    assert scores_of(again) == scores_of(output)
    assert "$ pcm train" not in again
    assert "$ pcm test" not in again
    assert "$ pcm export" not in again
    rewritten = {p for p, time in made.items() if p.stat().st_mtime_ns != time}
    assert rewritten == set(store.glob("shard-*"))


def test_processes_share_a_step_in_an_installed_package(demo, tmp_path):
    """Run torchrun from a wheel, without a checkout. Both folders have spaces in their names."""
    folder = shutil.copytree(demo[0], tmp_path / "my copy")
    made = {path: path.read_bytes() for path in folder.glob("data/toy/town/synthetic/*")}
    shutil.rmtree(folder / "data/toy/town/synthetic")
    code = (
        "from pcm_plugin.commands.toyworld.steps import DATA, generate\n"
        "generate(2, DATA / 'town' / 'synthetic')\n"
    )
    done = run_in_site(build_site(tmp_path / "my site-packages"), folder, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("\n$ torchrun --standalone --nproc_per_node 2 -m pcm_plugin gen")
    assert {path: path.read_bytes() for path in made} == made


def test_the_demo_rejects_results_of_other_data(demo, tmp_path):
    folder = shutil.copytree(demo[0], tmp_path / "copy")
    with open(folder / "data/toy/town/vocabulary.txt", "a") as file:
        file.write("unheard\n")
    output = run_command(folder, "demo", "--recipe", "toy", "--processes", "1", code=1)
    assert "pcm_toy contains a training with other settings or data:" in output
    assert "model.vocabulary: other data" in output


def test_the_results_are_written_to_their_page(demo, tmp_path):
    folder = shutil.copytree(demo[0], tmp_path / "copy")
    arm = "mix_sync"
    arguments = ("results", "--jobs", "1", "--seeds", "1", "--arms", arm, "--tables", "ablation")
    output = run_command(folder, *arguments, "systems")
    assert "written to docs/results.md" in output
    file = folder / "docs" / "results.md"
    page = file.read_text()
    scored = folder / "work_dirs" / "toy_results" / arm / "seed0" / "in_domain"
    cider = json.loads((scored / "metrics.json").read_text())["metrics"]["caption/CIDEr"]
    lines = [x for x in page.splitlines() if x.startswith("| base + mix-up, refined pairs | 1 |")]
    assert len(lines) == 1
    assert f" {cider:.1f} " in lines[0]
    assert "| oracle: the base on real pairs |" not in page  # it was not trained
    # A table that is not requested is not changed.
    file.write_text(page.replace("<!-- end of systems -->", "by hand\n<!-- end of systems -->"))
    # The scores remain without the runs and the data.
    for name in ("work_dirs", "data"):
        shutil.rmtree(folder / name)
    run_command(folder, *arguments)
    assert file.read_text() == page.replace("<!-- end of systems", "by hand\n<!-- end of systems")
    assert not (folder / "data").exists()
    with open(folder / "docs" / "results.jsonl", "a") as records:
        records.write("{}\n")
    assert "is not a record of `pcm results`" in run_command(folder, *arguments, code=1)
    output = run_command(folder, "results", "--tables", "systems", "--arms", "mix", code=1)
    assert "--arms: systems has no mix" in output


def test_each_patch_mode_has_its_own_features_and_pairs(monkeypatch):
    from pcm_plugin.commands.toyworld import arm_inputs

    commands = []
    for module in (arm_inputs, steps):
        monkeypatch.setattr(module, "run", lambda words, *_, **__: commands.append(list(words)))
    arm_inputs.make_inputs(["mix_sync_maskclip"], 1)
    extracted = [words for words in commands if words[0] == "extract"]
    assert len(extracted) == 4  # training, validation and two tests
    for words in extracted:
        assert words[words.index("--patch-mode") + 1] == "maskclip"
        assert words[-1].parent.name == "maskclip"
    (refined,) = (words for words in commands if words[0] == "refine")
    assert refined[1].parent.name == "maskclip"


def test_things_found_are_listed_by_the_frequency_of_their_words(demo, records, monkeypatch):
    from pcm_plugin.commands.toyworld import report, scores
    from pcm_plugin.commands.toyworld.records import read_scores

    monkeypatch.chdir(demo[0])
    for test, domain in (("in_domain", "town"), ("toy_country", "country")):
        records.add("mix", 0, test, read_scores(tool.WORK / "test" / test, domain))
    head, _, *rows = report.frequency_table(records, scores.rows_of("controls"), 1)
    assert "| 100 and more, town | 0 to 9, country |" in head
    (mix,) = [row for row in rows if row.startswith("| base + mix-up |")]
    few, several, many, *country = mix.split(" | ")[1:]
    assert 0 <= float(few) <= 100
    assert (several, many) == ("-", "-")  # no word is in 10 of the 20 training captions
    assert 0 <= float(country[0]) <= 100
    assert rows[0] == f"| {report.rows_of('controls')['base'].title} |" + " - |" * 6


def test_the_cost_of_systems_is_measured(demo, tmp_path, monkeypatch):
    """Run the benchmark on the output of the demo; its measurements are not checked."""
    folder = shutil.copytree(demo[0], tmp_path / "copy")
    (folder / "runs" / "both").mkdir(parents=True)
    (folder / "work_dirs" / "pcm_toy").rename(folder / "runs" / "both" / "seed0")
    (folder / "docs").mkdir()
    page = folder / "docs" / "results.md"

    def measure(*words):
        words = ["--runs", "runs", "--iterations", "1", "--images", "4", "--write", *words]
        script = ROOT / "benchmarks" / "systems.py"
        return run_script(script, *words, log=tmp_path / "log.txt", env=steps.KEEP_MEMORY)

    monkeypatch.chdir(folder)
    page.write_text("nothing")
    assert "must have the lines <!-- costs" in measure("--arms", "both").output.splitlines()[-1]
    page.write_text("a\n<!-- costs: benchmarks/systems.py -->\nold\n<!-- end of costs -->\nb\n")
    assert "no run of base: create it" in measure("--arms", "base").output.splitlines()[-1]
    done = measure("--arms", "both", "both_rerank")
    assert done.code == 0, done.output[-2000:]
    found = json.loads(done.output.splitlines()[-1])
    assert found["both"]["iteration_ms"] > 0
    assert found["both_rerank"].keys() == {"caption_ms"}  # the same training
    assert "| base + both (PCM-Net) | " in page.read_text()
    assert "| PCM-Net + re-ranking by CLIP |  |  |  | " in page.read_text()
    assert "old" not in page.read_text()


def test_the_cost_of_validation_on_generated_images_is_measured(demo, tmp_path, monkeypatch):
    folder = shutil.copytree(demo[0], tmp_path / "copy")

    def measure(*words):
        words = ["--seeds", "1", "--epochs", "2", *words]
        script = ROOT / "benchmarks" / "validation_choice.py"
        return run_script(script, *words, log=tmp_path / "log.txt")

    monkeypatch.chdir(folder)
    assert "can be held out with --max-share 0.05" in measure().output.splitlines()[-1]
    done = measure("--max-share", "0.6")
    assert done.code == 0, done.output[-2000:]
    found = json.loads(done.output.splitlines()[-1])
    assert found["counts"]["validation"] >= 10
    assert sum(found["counts"].values()) == 20
    checkpoints = found["seeds"]["0"]["checkpoints"]
    assert checkpoints.keys() == {"1", "2"}
    for split in ("generated", "real"):
        best = max(checkpoints.values(), key=lambda scores: scores[split])
        assert found["test"][split]["0"] == best["test"]
    assert found["test"]["best"]["0"] == max(scores["test"] for scores in checkpoints.values())
    assert found["test"]["last"]["0"] == checkpoints["2"]["test"]


def test_every_row_of_the_results_can_be_run():
    from pcm_plugin.commands.toyworld import scores, tables

    for table in tables.TABLES:
        rows = scores.rows_of(table)
        assert [row.arm + row.variant for row in rows.values()] == tables.TABLES[table]
        assert {row.arm for row in rows.values()} == set(tables.arms_of(table))
    assert {arm for table in tables.TABLES for arm in tables.arms_of(table)} == arms.ARMS.keys()
    for table, pairs in tables.COMPARED.items():
        assert {name for pair in pairs for name in pair} <= {*tables.TABLES[table]}
    for name in arms.ARMS:
        if "blip" in arms.config_of(name).name and import_error():
            continue
        cfg = read_config(name)
        tests = arms.list_tests(name)
        assert list(tests)[:2] == ["in_domain", "toy_country"]
        # Images and concepts are those of the country, for all systems with concepts.
        country = read_config(name)
        apply_evaluation(country, tests["toy_country"].evaluation)
        assert "town" not in str(country.test_dataloader)
        count = str(cfg.model).count("town/concepts.safetensors")
        assert str(country.model).count("country/concepts.safetensors") == count
        assert "town/concepts" not in str(country.model)


def test_the_options_of_every_arm_are_settings_of_its_config():
    for name, arm in arms.ARMS.items():
        if arm.config == "pcm_blip_toy":
            continue
        cfg = read_config(name)
        for options in (arm.config_options(), *(v.options for v in arm.variants.values())):
            for option in options:
                *parents, last = option.split("=", 1)[0].split(".")
                node = cfg
                for parent in parents:
                    node = node.get(parent, {})
                if last in node or parents == ["model", "backbone"]:
                    continue
                if parents == ["default_hooks", "average"]:
                    assert last in {"type", *inspect.signature(AverageWeightsHook).parameters}
                    continue
                # An argument that the config leaves at its default.
                kinds = {"decoding": DecodingConfig, "clip": OpenCLIPBackbone}
                kind = kinds.get(parents[-1]) or MODELS.get(node["type"])
                kind = kind or DATASETS.get(node["type"])
                assert last in inspect.signature(kind).parameters, f"{name}: {option}"


def merged(name, target=None):
    """Return the config of the test of an arm."""
    cfg = read_config(name)
    options = (option.split("=", 1) for option in arms.ARMS[name].config_options())
    cfg.merge_from_dict({key: parse_value(text) for key, text in options})
    if target:
        apply_evaluation(cfg, target)
    return cfg


def test_arms_with_other_features_read_no_default_features():
    from pcm_plugin.commands.toyworld import arm_features

    default = merged("mix")
    for name in ("base_maskclip", "both_sync_sclip", "drop_taught"):
        folder = arm_features.FEATURES[arms.ARMS[name].features].subfolder
        for cfg, domain in ((merged(name), "town"), (merged(name, "toy_country"), "country")):
            assert cfg.test_dataloader.dataset.store == f"data/toy/{domain}/{folder}/test_store"
            concepts = f"data/toy/{domain}/{folder}/concepts.safetensors"
            assert cfg.model.neck.concepts == concepts
            head = f"data/toy/town/{folder}/train_store/clip_head.safetensors"
            assert cfg.model.neck.clip_head == head
    assert merged("both_sync_sclip").clip.patch_mode == "sclip"
    pairs = merged("both_sync_sclip").train_dataloader.dataset.pairs
    assert pairs == "data/toy/town/sclip/sync/pairs.safetensors"
    # A rotation changes the projection only.
    rotated = merged("mix_rotated")
    assert rotated.model.neck.clip_head == "data/toy/town/rotated_head.safetensors"
    rotated.model.neck.clip_head = default.model.neck.clip_head
    assert rotated.to_dict() == default.to_dict()


def test_missing_inputs_are_reported_before_work_starts(tmp_path, monkeypatch, capsys):
    from pcm_plugin import cli

    monkeypatch.chdir(tmp_path)
    for command, message in (
        (["results", "--arms", "mix_taught_rotated"], "no folder benchmarks/taught_clip, which"),
        (["measure-prior"], "no folder data/toy_prior/web: run `pcm train-prior --stages web"),
        (["measure-prior", "--diffusion", "typo"], "no folder typo: pass the folder of a model"),
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main(command)
        assert message in str(stopped.value.code)
    assert not list(tmp_path.iterdir())


def test_a_rotation_keeps_the_angles_between_patches():
    from pcm_plugin.commands.toyworld.arm_inputs import rotate_clip_head

    head = {"ln_post.weight": torch.rand(6), "ln_post.bias": torch.rand(6)}
    head["proj"] = torch.randn(6, 4)
    rotated = rotate_clip_head(head)
    before, after = (part["proj"] @ part["proj"].T for part in (head, rotated))
    torch.testing.assert_close(after, before)
    assert (rotated["proj"] - head["proj"]).abs().max() > 0.1
    assert torch.equal(rotated["proj"], rotate_clip_head(head)["proj"])
    assert torch.equal(rotated["ln_post.bias"], head["ln_post.bias"])


@pytest.fixture
def records(tmp_path):
    from pcm_plugin.commands.toyworld.records import Records

    return Records(tmp_path / "docs" / "results.jsonl")


def add_scores(records, ciders, ending=""):
    """Add the scores of arms by seed; 10 less in the country."""
    for arm, values in ciders.items():
        for seed, value in enumerate(values):
            for shift, test in ((0, "in_domain"), (-10, "toy_country")):
                scores = {"BLEU-4": value + 1, "ROUGE-L": value + 2, "CIDEr": value}
                shifted = {name: score + shift for name, score in scores.items()}
                if test + ending in arms.list_tests(arm):
                    records.add(arm, seed, test + ending, shifted)


def test_gains_are_listed_and_drawn_by_condition(records, tmp_path, monkeypatch):
    from pcm_plugin.commands.toyworld import conditions

    accuracies = {"plain": {"accuracy": 40.0}}
    monkeypatch.setattr(conditions, "_patch_accuracy", lambda f: accuracies[f])
    monkeypatch.setattr(conditions, "_concept_recall", lambda clip, top: {"recall": 10.0 * top})
    ciders = {"base": [80, 90], "mix": [83, 91], "drop": [81, 91], "mix_K10": [90, 100]}
    ciders["mix_K1"] = [81]
    add_scores(records, {**ciders, "base_300": [40, 40], "mix_300": [50, 52]})
    points = conditions.read_points(records, 2)
    head, _, *lines = conditions.condition_table(points)
    assert head.startswith("|  | seeds | patch accuracy, % | concept recall, % | base, town |")
    rows = {line.split(" | ")[0]: line for line in lines}
    gains = "+2.0 ± 1.0 | +1.0 ± 0.0"
    default = "2 | 40.0 | 50.0 | 85.0 ± 5.0 | 75.0 ± 5.0 | "
    assert lines[0].endswith(f"{default}{gains} | {gains} | +1.0 ± 1.0 | +1.0 ± 1.0 |")
    assert "| 40.0 | 100.0 | 85.0 ± 5.0 | 75.0 ± 5.0 | +10.0 ± 0.0 | - |" in rows["| K = 10"]
    assert "| 40.0 ± 0.0 | 30.0 ± 0.0 | +11.0 ± 1.0 |" in rows["| 300 pairs"]
    # The number of seeds is that of the differences.
    assert rows["| K = 1"].startswith("| K = 1 | 1 | 40.0 |")
    # Conditions without scores are left out; their features may not exist.
    assert set(rows) == {f"| {conditions.DEFAULT.title}", "| 300 pairs", "| K = 1", "| K = 10"}
    # Measurements are kept with the scores.
    records.save()
    for name in ("_patch_accuracy", "_concept_recall"):
        monkeypatch.setattr(conditions, name, pytest.fail)
    again = conditions.read_points(type(records)(records.file), 2)
    assert conditions.condition_table(again)[2:] == lines
    conditions.draw_conditions(points, tmp_path / "images" / "figure.png")
    with Image.open(tmp_path / "images" / "figure.png") as figure:
        assert min(figure.size) > 500


def test_scores_count_for_the_settings_of_their_run_only(records, monkeypatch):
    from pcm_plugin.commands.toyworld import records as module

    add_scores(records, {"oracle": [80]})
    records.save()
    again = module.Records(records.file)
    assert again.scores("oracle", 0, "in_domain")["CIDEr"] == 80
    assert not again.has_run("oracle", 0)  # re-ranking is missing
    add_scores(again, {"oracle": [81]}, arms.RERANK)
    assert again.has_run("oracle", 0)
    assert not again.has_run("oracle", 1)
    assert module.Records(records.file, ["x=1"]).scores("oracle", 0, "in_domain") is None
    changed = arms.replace(arms.ARMS["oracle"], options=("train_cfg.max_epochs=2",))
    monkeypatch.setitem(arms.ARMS, "oracle", changed)
    module.arm_settings.cache_clear()
    assert again.scores("oracle", 0, "in_domain") is None
    module.arm_settings.cache_clear()


def test_guidance_scales_are_compared_on_validation(records):
    from pcm_plugin.commands.toyworld import guidances, report, scores
    from pcm_plugin.toyworld import ASSETS

    names = [arms.guidance_arm(guidance) for guidance in guidances.GUIDANCES]
    assert "base" in names
    ciders = {name: [50 + i, 52 + i] for i, name in enumerate(names)}
    for ending in ("", arms.VALIDATION):
        add_scores(records, ciders, ending)
    head, _, *lines = report.guidance_table(records, scores.rows_of("guidance"), 2)
    assert head.startswith("| guidance | seeds | CIDEr, validation | CIDEr, town |")
    assert lines[0].startswith("| 2 | 2 | 51.0 ± 1.0 | 51.0 ± 1.0 | 41.0 ± 1.0 |")
    assert lines[3].startswith("| 7.5 | 2 | 54.0 ± 1.0 |")
    real = json.loads((ASSETS / "quality.json").read_text())["real pictures"]
    assert f"| {real['two objects']:.3g} |" in lines[4]


@pytest.mark.parametrize("name", ["base", "mix", "drop", "drop_random", "random_patches"])
def test_the_settings_of_the_controls_are_those_of_the_neck(name):
    cfg = read_config(name)
    options = (option.split("=", 1) for option in arms.ARMS[name].options)
    cfg.merge_from_dict({key: parse_value(text) for key, text in options})
    neck = MODELS.build({**cfg.model.neck, "concepts": None, "clip_head": None})
    assert (neck.matcher is None) == (name == "base")
    assert neck.mix == ("drop" if "drop" in name else "replace")
    assert name == "base" or neck.matcher.control == (
        "random_patches" if "random" in name else "none"
    )


def test_the_page_summarizes_the_scores(records):
    from pcm_plugin.commands.toyworld import report, scores

    ciders = {"capdec": [50, 52], "base": [80, 84], "both": [91, 91], "oracle": [120, 126]}
    changed = {"base": [83, 89]}
    # The third seed is of an earlier run.
    add_scores(records, {arm: [*values, 1000] for arm, values in ciders.items()})
    add_scores(records, {arm: [*values, 1000] for arm, values in changed.items()}, arms.RERANK)
    rows = {name: scores.Row(name.upper(), name) for name in [*ciders, "mix"]}
    rows["base_x"] = scores.Row("BASE, CHANGED", "base", arms.RERANK)
    head, _, *table = report.score_table(records, rows, 2)
    assert head.startswith("|  | seeds | CIDEr, town | over the base | CIDEr, country | over the")
    others = "83.0 ± 2.0 | 73.0 ± 2.0 | 84.0 ± 2.0 | 74.0 ± 2.0 |"
    assert f"| BASE | 2 | 82.0 ± 2.0 | - | 72.0 ± 2.0 | - | {others}" in table
    # Differences are those of each seed: 11 and 7, -30 and -32, 3 and 5.
    gains = {"BOTH": "+9.0 ± 2.0", "CAPDEC": "-31.0 ± 1.0", "BASE, CHANGED": "+4.0 ± 1.0"}
    for name, gain in gains.items():
        assert [row.count(f" | {gain} | ") for row in table if row.startswith(f"| {name} |")] == [2]
    assert "| MIX | 0 |" + " - |" * 8 in table
    assert not scores.has_scores(records, rows["mix"], 2)
    assert scores.has_scores(records, rows["base_x"], 2)
    pairs = [("both", "capdec"), ("base_x", "base"), ("mix", "base")]
    lines = report.summary(records, rows, 2, pairs)
    assert lines[:4] == [
        "- CIDEr, town (in-domain): the base reaches 67 % of the oracle; oracle - base: "
        "+41.0 ± 1.0.",
        "- CIDEr, town (in-domain), pairwise differences:",
        "  - BOTH over CAPDEC: +40.0 ± 1.0",
        "  - BASE, CHANGED over BASE: +4.0 ± 1.0, same trainings",
    ]
    assert "base reaches 64 % of the oracle; oracle - base: +41.0 ± 1.0" in lines[4]
    # Only seeds with both tests count.
    records.add("base", 1, f"in_domain{arms.RERANK}", {})
    left = report.summary(records, rows, 3, pairs)
    (town, country) = [line for line in left if "BASE, CHANGED over BASE" in line]
    assert town.endswith("+1.5 ± 1.5, same trainings")  # 3 and 0
    assert country.endswith("+2.7 ± 1.5, same trainings")  # 3, 5 and 0
    # With one common seed, a difference has no error and is left out.
    for test in ("in_domain", "toy_country"):
        records.add("both", 0, test, {})
    left = report.summary(records, {**rows, "mix": rows["both"]}, 2, [("both", "capdec")])
    assert not [line for line in left if "BOTH" in line or "pairwise" in line]


def test_the_table_of_the_paper_includes_the_runs_of_the_demo(demo, monkeypatch, capsys):
    rows = ["--rows", "town: PCM-Net", "town: base", "town -> country: PCM-Net"]
    monkeypatch.chdir(demo[0])
    monkeypatch.setattr(sys, "argv", [])
    with pytest.raises(SystemExit) as stopped:
        cli.main(["paper-table", "toy", *rows, "--cfg-options", *steps.QUICK])
    assert not stopped.value.code
    output = capsys.readouterr().out
    assert "$" not in output
    for test, title in (("in_domain", "town"), ("toy_country", "town -> country")):
        scored = demo[0] / "work_dirs" / "pcm_toy" / "test" / test / "metrics.json"
        cider = json.loads(scored.read_text())["metrics"]["caption/CIDEr"]
        (line,) = [x for x in output.splitlines() if x.startswith(f"| {title}: PCM-Net |")]
        assert f" {cider:.1f} / - |" in line
    assert "no weights in work_dirs/pcm_toy_base" in output


def test_scores_are_valid_only_for_the_tested_settings(demo, monkeypatch):
    monkeypatch.chdir(demo[0])
    folder = tool.WORK / "test" / "in_domain"
    checkpoint = require_best_checkpoint(tool.WORK)
    options = [f"test_evaluator.outfile={folder}/captions.json"]
    assert runs.has_scores(folder, CONFIG, options, checkpoint)
    assert not runs.has_scores(folder, CONFIG, [*options, "model.decoding.beam_size=1"], checkpoint)
    assert not runs.has_scores(folder, CONFIG, options, f"{tool.WORK}/run.json")
    other = f"test_dataloader.dataset.store={steps.DATA}/country/test_store"
    assert not runs.has_scores(folder, CONFIG, [*options, other], checkpoint)


def test_a_run_is_identified_by_the_inputs_of_its_training(demo, monkeypatch):
    monkeypatch.chdir(demo[0])
    for option in ("test_dataloader.batch_size=8", "env_cfg.dist_cfg.timeout=60"):
        assert runs.is_trained(tool.WORK, CONFIG, [*steps.QUICK, option])
    for option in ("train_dataloader.batch_size=8", "randomness.seed=1"):
        with pytest.raises(UserError, match=option.split("=")[0].split("_")[0]):
            runs.is_trained(tool.WORK, CONFIG, [*steps.QUICK, option])


def test_failed_and_skipped_scores_are_missing(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(demo[0])
    checkpoint = require_best_checkpoint(tool.WORK)
    options = ["test_evaluator.scorers=[CIDEr,METEOR]"]
    found = json.loads((tool.WORK / "test" / "in_domain" / "metrics.json").read_text())
    cfg = runs.read_config(CONFIG, options, ("test",))
    found["settings"] = hash_settings(cfg, TEST_KEYS)

    def has_scores(**metrics):
        metrics = {f"caption/{name}": value for name, value in metrics.items()}
        (tmp_path / "metrics.json").write_text(json.dumps(found | {"metrics": metrics}))
        return runs.has_scores(tmp_path, CONFIG, options, checkpoint)

    monkeypatch.setattr(runs.java, "missing_requirement", lambda name: f"{name} needs Java")
    assert has_scores(CIDEr=1.0)
    assert not has_scores(CIDEr=float("nan"))
    # Java is available now.
    monkeypatch.setattr(runs.java, "missing_requirement", lambda name: None)
    assert not has_scores(CIDEr=1.0)
    assert has_scores(CIDEr=1.0, METEOR=2.0)
