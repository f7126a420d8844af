"""Validation on generated images of held-out captions, from the caption file to the tuning."""

import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from mmengine.config import Config
from PIL import Image

from pcm_plugin.commands.make_dataset import main
from pcm_plugin.datasets import SynthCaptionDataset
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.image_references import load_references
from pcm_plugin.formats.pair_selection import PairSelection, load_pairs
from pcm_plugin.formats.tokenize import tokenize
from pcm_plugin.models.captioner_file import load_captioner
from pcm_plugin.registry import MODELS
from tests.builders import build_clip, build_pipeline
from tests.configs import TINY
from tests.test_docs.pages import ROOT, code_blocks
from tests.test_tools.commands import run

THINGS = ["dog", "cat", "car", "tree", "house"]
COLORS = ["red", "green", "blue"]
CAPTIONS = [
    f"{start} {color} {thing} {verb} next to {article} {other}"
    for start, color, thing, verb, article, other in itertools.product(
        ("the", "a"), COLORS, THINGS, ("runs", "stands"), ("the",), THINGS
    )
]  # 300
PER_IMAGE = 2
SETTINGS = ["validation.max_share=0.3", "validation.captions=40"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Captions, two of each image, and a recipe with tiny models."""
    folder = tmp_path_factory.mktemp("inputs")
    rows = [
        {"id": f"c{i}", "image_id": f"i{i // PER_IMAGE}", "caption": text}
        for i, text in enumerate(CAPTIONS)
    ]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "generate": {
            "pipeline": str(build_pipeline(folder / "pipeline")),
            "steps": 1,
            "format": "png",
            "shard_size": 100,
            "batch_size": 50,
        },
        "extract": {"model": build_clip(folder / "clip"), "batch_size": 50},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def make(inputs, out, *settings, options=(), processes=1, captions=None):
    file = captions or inputs / "captions.jsonl"
    args = [file, "--recipe", inputs / "tiny.yaml", "--out", out, "--device", "cpu"]
    args += [*options, "--set", *SETTINGS, *settings]
    log = out.with_suffix(".log")
    return run("make-dataset", *args, log=log, processes=processes, launcher=False)


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    """Return a data set whose pairs are not refined."""
    out = tmp_path_factory.mktemp("whole") / "data"
    result = make(inputs, out)
    assert result.code == 0, result.output
    assert re.search(
        r"^validation: \d+ of 300 captions are held out with their generated images, and \d+ near-"
        r"duplicates of them are not used; the scores are those on generated images, only for",
        result.output,
        re.MULTILINE,
    )
    return out


def is_near(one, other):
    one, other = set(tokenize(one)), set(tokenize(other))
    return len(one & other) / len(one | other) >= 0.8


def check_split(out, pairs, images_per_caption=1):
    """Check that nothing leaks between references and pairs, and return both."""
    store = FeatureStore(out / "train_store")
    references = load_references(out / "validation" / "references.jsonl")
    assert 10 <= len(references) <= 40
    pairs = PairSelection.from_file(out / pairs, store.identity)
    trained = {store.caption(j) for j in pairs.caption.tolist()}
    shown = {store.captions(i)[0] for i in np.unique(pairs.image).tolist()}
    ids = {store.record(i)["image_id"] for i in np.unique(pairs.image).tolist()}
    assert not ids & references.keys()
    for texts in references.values():
        assert len(texts) == PER_IMAGE
        for text in texts:
            assert not any(is_near(text, other) for other in trained | shown)
    return references, pairs


def test_held_out_captions_and_their_images_are_not_trained_on(whole):
    references, pairs = check_split(whole, "validation/train_pairs.safetensors")
    store = FeatureStore(whole / "train_store")
    for image_id, texts in references.items():
        number = int(image_id[1:])
        other = number + 1 if number % PER_IMAGE == 0 else number - 1
        assert texts == [CAPTIONS[number], CAPTIONS[other]], "its own first"
        assert f"c{other}" in references
    expected = load_pairs(store)
    assert np.array_equal(pairs.image, expected.image[pairs.caption])
    assert np.array_equal(pairs.clip_score, expected.clip_score[pairs.caption])
    summary = json.loads((whole / "validation" / "manifest.json").read_text())["shards"]["split"]
    assert len(pairs.caption) + summary["count"] + summary["near_duplicates"] == 300


def test_the_config_trains_on_the_others_and_validates_on_them(whole):
    cfg = Config.fromfile(whole / "config.py")
    training = SynthCaptionDataset(**without_type(cfg.train_dataloader.dataset))
    validation = SynthCaptionDataset(**without_type(cfg.val_dataloader.dataset))
    references = load_references(whole / "validation" / "references.jsonl")
    samples = [validation.sample(i) for i in range(len(validation))]
    assert {s.image_id: s.gt_caption for s in samples} == references
    store = FeatureStore(whole / "train_store")
    numbers = {record: i for i, record in enumerate(store.image_ids)}
    for i in (0, len(validation) - 1):
        expected = store.global_feats(numbers[samples[i].image_id])
        assert (validation[i]["global_feats"] == expected).all()
    texts = set(itertools.chain.from_iterable(references.values()))
    assert not texts & set(training.iter_captions())
    assert cfg.default_hooks.checkpoint.save_best == "caption/CIDEr"
    assert cfg.test_dataloader is None
    assert "early_stopping" not in cfg.default_hooks


def test_a_training_on_held_out_captions_is_refused(whole, tmp_path):
    args = [whole / "config.py", "--work-dir", tmp_path / "run", "--cfg-options", *TINY]
    args += ["train_dataloader.dataset.pairs=None"]
    result = run("train", *args, log=tmp_path / "log")
    assert result.code == 1
    count = len(load_references(whole / "validation" / "references.jsonl"))
    assert re.search(
        rf"trains on {count} captions \('.*\) and {count} images that are held out", result.output
    )
    assert not list((tmp_path / "run").glob("*.py")), "before the run begins"
    args.remove("val_dataloader.num_workers=0")
    off = ["val_dataloader=None", "val_cfg=None", "val_evaluator=None"]
    assert " ".join(off) in result.output
    result = run("train", *args, *off, log=tmp_path / "log")
    assert result.code == 0, result.output


def test_the_documented_commands_for_photos(inputs, whole, tmp_path, monkeypatch):
    """They lead to a training on photos, without the held-out captions and their images."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole, "data/mine")
    Path("photos").mkdir()
    for n in range(12):
        Image.new("RGB", (20, 20), (20 * n, 0, 0)).save(f"photos/{n}.png")
    page = ROOT / "docs" / "your_own_captions.md"
    (block,) = [block for block in code_blocks(page, "bash") if "--pool $D/photo_store" in block]
    block = block.replace("\\\n", "").replace("$D", "data/mine")
    clip = yaml.safe_load((inputs / "tiny.yaml").read_text())["extract"]["model"]
    for line in block.replace("ViT-B-32-quickgelu --pretrained openai", clip).splitlines():
        _, name, *words = line.split()
        words += TINY if name == "train" else ["--device", "cpu"]
        result = run(name, *words, log=tmp_path / "log", launcher=False)
        assert result.code == 0, result.output
    (best,) = Path("work_dirs").glob("config/best_*.pth")
    # Validation is on another store than the training, and still on generated images.
    result = run("report", "work_dirs/config", "--count", 1, log=tmp_path / "log")
    assert result.code == 0, result.output
    assert "Validation is on generated images of held-out captions." in Path(
        "work_dirs/config/report.html"
    ).read_text(encoding="utf-8")
    args = ["data/mine/config.py", best, "--beam-sizes", 1, "--rerank-weights", 0]
    args += ["--device", "cpu", "--cfg-options", *TINY]
    args += ["train_dataloader.dataset.store=data/mine/pool/store"]
    result = run("tune", *args, log=tmp_path / "log")
    assert result.code == 0, result.output
    assert "generated images of held-out captions, the validation split of" in result.output


def test_syntic_leaves_them_out_of_training_and_text_memory(whole):
    cfg = Config.fromfile(whole / "syntic.py")
    pairs = cfg.train_dataloader.dataset.pairs
    assert pairs.endswith("validation/train_pairs.safetensors")
    assert cfg.val_dataloader.dataset.features == "global"
    assert cfg.val_dataloader.dataset.references.endswith("validation/references.jsonl")
    neck = MODELS.build(cfg.model.neck)
    store = FeatureStore(whole / "train_store")
    trained = PairSelection.from_file(pairs, store.identity).caption
    assert (neck.text_memory == store.read_rows("caption_feats", trained, dtype=None)).all()
    assert len(trained) < store.num_captions


def without_type(settings):
    return {key: value for key, value in settings.items() if key != "type"}


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file() and path.name[0] != "."
    }


def test_an_interrupted_or_shared_split_has_the_same_bytes(inputs, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "data")
    shutil.rmtree(out / "validation")
    assert make(inputs, out, processes=2).code == 0
    assert contents(out) == contents(whole)
    manifest = out / "validation" / "manifest.json"  # killed after the files, before the manifest
    facts = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**facts, "shards": {}}))
    (out / "validation" / "references.jsonl").write_text("cut")
    assert make(inputs, out).code == 0
    assert contents(out) == contents(whole)
    result = make(inputs, out, "validation.seed=1")
    assert result.code == 1
    assert "validation was made with other settings (seed: 0 there, 1 now)" in result.output
    assert f"or remove {out / 'validation'}, and run pcm make-dataset again" in result.output
    result = make(inputs, out, "vocabulary.language=de")
    assert result.code == 1
    assert (
        "validation was made with other settings (language: None there, 'de' now" in result.output
    )


@pytest.fixture
def error_of(inputs, monkeypatch):
    """Return a function that makes a data set in this process and returns the error, or None."""

    def make(out, *settings, options=()):
        args = [inputs / "captions.jsonl", "--recipe", inputs / "tiny.yaml", "--device", "cpu"]
        args += ["--out", out, *options, "--set", *SETTINGS, *settings]
        monkeypatch.setattr("sys.argv", ["pcm make-dataset", *map(str, args)])
        try:
            main()
        except SystemExit as error:
            return error.code
        return None

    return make


def test_pairs_refined_over_other_captions_are_refused(whole, error_of, tmp_path):
    """As in a folder that is older than the split, or with other settings of `validation`."""
    out = shutil.copytree(whole, tmp_path / "data")
    sync = "refine.keep=1.0"
    pairs, split = out / "pairs", out / "validation"
    options = ["--stages", "corpus", "generate", "extract"]
    assert error_of(out, sync, "validation=None") is None
    for more in (options, []):
        error = error_of(out, sync, options=more)
        assert f"{pairs} was refined among all images and captions, but 2" in error
        assert f"remove {pairs}, and run the stage refine of pcm make-dataset" in error
    shutil.rmtree(pairs)
    assert error_of(out, sync) is None
    check_split(out, "pairs/pairs.safetensors")
    error = error_of(out, sync, "validation.seed=1")
    assert f"or remove {split} and {pairs}, and run pcm make-dataset again" in error
    shutil.rmtree(split)
    error = error_of(out, sync, "validation.seed=1", options=options)
    assert f"{pairs} was refined among 2" in error
    error = error_of(out, sync, "validation=None", options=options)
    assert "but all images and captions are trained on now" in error


@pytest.mark.parametrize("stage", ["corpus", "generate"])
def test_an_unfinished_or_damaged_split_is_reported(whole, error_of, tmp_path, stage):
    out = shutil.copytree(whole, tmp_path / "data")
    split = out / "validation"
    manifest = split / "manifest.json"
    facts = json.loads(manifest.read_text())
    options = ["--stages", stage]
    fix = f"run the stage extract of pcm make-dataset for {out}"
    cut = f"{split} is unfinished, or files in it are missing or cut: {fix}"
    (split / "train_pairs.safetensors").write_bytes(b"cut")
    assert error_of(out, options=options) == cut
    manifest.write_text(json.dumps({**facts, "shards": {}}))
    assert error_of(out, options=options) == cut
    old = {"num_source": 300, "count": 0, "files": {}, "digest": "x"}
    manifest.write_text(json.dumps({**facts, "shards": {"split": old}}))
    error = error_of(out, options=options)
    assert f"manifest.json has no 'near_duplicates': remove {split}, and {fix}" in error
    manifest.write_text("{")
    error = error_of(out, options=options)
    assert "manifest.json is not a manifest" in error
    assert f"remove {split}, and run pcm make-dataset again" in error
    shutil.rmtree(split)
    assert error_of(out, options=options) == f"no captions are held out yet in {split}: {fix}"
    assert error_of(out) is None
    assert contents(out) == contents(whole)


def test_synC_assigns_no_held_out_image_or_caption(inputs, whole, tmp_path):
    assign = build_clip(tmp_path / "assigning", seed=1)
    for name, more in (("own", []), ("other", [f"assign.model={assign}"])):
        out = shutil.copytree(whole, tmp_path / name)
        result = make(inputs, out, "refine.keep=1.0", "refine.chunk=70", *more)
        assert result.code == 0, result.output
        _, pairs = check_split(out, "pairs/pairs.safetensors")
        alone = PairSelection.from_file(
            out / "validation" / "train_pairs.safetensors",
            FeatureStore(out / "train_store").identity,
        )
        assert np.array_equal(pairs.caption, alone.caption)
        assert (pairs.image != alone.image).any()
        cfg = Config.fromfile(out / "config.py")
        assert cfg.train_dataloader.dataset.pairs.endswith("/pairs/pairs.safetensors")
        assert cfg.val_dataloader.dataset.references.endswith("validation/references.jsonl")


def test_a_dry_run_counts_what_is_refined(whole, error_of, tmp_path, capsys):
    summary = json.loads((whole / "validation" / "manifest.json").read_text())["shards"]["split"]
    left = 300 - summary["count"] - summary["near_duplicates"]
    for settings, rows in (
        ([], 2 * left),
        (["generate.images_per_caption=3"], 6 * left),
        (["validation=None"], 600),
    ):
        error = error_of(tmp_path / "data", "refine.keep=1", *settings, options=["--dry-run"])
        assert error is None
        assert re.search(rf"^refine +{rows:,} rows, 0 done", capsys.readouterr().out, re.MULTILINE)


def test_several_images_per_caption_and_shared_images(inputs, tmp_path):
    result = make(inputs, tmp_path / "several", "generate.images_per_caption=2")
    assert result.code == 0, result.output
    references, pairs = check_split(tmp_path / "several", "validation/train_pairs.safetensors")
    assert all(image_id.endswith("-0") for image_id in references), "one image is enough"
    assert len(pairs.caption) % 2 == 0
    # One image for captions of equal text; each text occurs twice.
    texts = [*CAPTIONS, *CAPTIONS]
    (tmp_path / "twice.txt").write_text("\n".join(texts))
    out, options = tmp_path / "unique", ["generate.unique=True"]
    result = make(inputs, out, *options, captions=tmp_path / "twice.txt")
    assert result.code == 0, result.output
    store = FeatureStore(out / "train_store")
    assert (len(store), store.num_captions) == (300, 600)
    references = load_references(out / "validation" / "references.jsonl")
    pairs = load_pairs(store, out / "validation" / "train_pairs.safetensors")
    trained = {store.caption(j) for j in pairs.caption.tolist()}
    assert len(references) >= 10
    for texts in references.values():
        assert not any(is_near(text, other) for text in texts for other in trained)


def test_real_images_or_none_replace_it(inputs, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "off")
    result = make(inputs, out, "validation=None")
    assert result.code == 0, result.output
    assert "held out" not in result.output
    cfg = Config.fromfile(out / "config.py")
    assert (cfg.val_dataloader, cfg.train_dataloader.dataset.pairs) == (None, None)
    args = [inputs / "captions.jsonl", "--recipe", inputs / "tiny.yaml", "--device", "cpu"]
    args += ["--out", out]
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (20, 20)).save(photos / "1.png")
    (tmp_path / "val.csv").write_text("caption,image\na dog,1.png\n")
    real = [*args, "--val", photos, tmp_path / "val.csv"]
    result = run("make-dataset", *real, log=tmp_path / "log", launcher=False)
    assert result.code == 0, result.output
    cfg = Config.fromfile(out / "config.py")
    assert cfg.train_dataloader.dataset.pairs is None
    assert cfg.val_dataloader.dataset.store.endswith("val_store")
    assert cfg.val_dataloader.dataset.get("references") is None
    # Later runs keep the real images.
    assert make(inputs, out).code == 0
    assert Config.fromfile(out / "config.py").val_dataloader.dataset.store.endswith("val_store")


@pytest.fixture(scope="module")
def trained(whole, tmp_path_factory):
    """Return the work folder of a training on the data set."""
    work = tmp_path_factory.mktemp("run") / "work"
    args = [whole / "config.py", "--work-dir", work, "--cfg-options", *TINY]
    args += ["train_cfg.max_epochs=2"]
    result = run("train", *args, log=work.with_suffix(".log"))
    assert result.code == 0, result.output
    return work


def test_the_best_checkpoint_is_chosen_and_reported(trained):
    record = json.loads((trained / "run.json").read_text())
    assert record["finished"]
    assert re.fullmatch(r"best_caption_CIDEr_epoch_[12]\.pth", record["best"])
    result = run("report", trained, "--count", 2, log=trained.with_suffix(".report"))
    assert result.code == 0, result.output
    page = (trained / "report.html").read_text()
    assert "generated images of held-out captions" in page
    assert "gray squares" not in page


def test_a_training_stops_early_if_the_recipe_says_so(inputs, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "data")
    (out / "config.py").unlink()
    assert make(inputs, out, "validation.patience=2").code == 0
    args = [out / "config.py", "--work-dir", tmp_path / "run", "--cfg-options"]
    args += [*TINY[1:], "optim_wrapper.optimizer.lr=1e-9"]
    result = run("train", *args, log=tmp_path / "log")
    assert result.code == 0, result.output
    # The weights, and therefore the scores, hardly change.
    assert (tmp_path / "run" / "epoch_3.pth").is_file()
    assert not (tmp_path / "run" / "epoch_4.pth").exists()
    assert "caption/CIDEr did not improve in 2 validations" in result.output


TUNE = ["--rerank-weights", 0, 5, 300, "--beam-sizes", 1, 4, "--ranks"]


@pytest.fixture(scope="module")
def captioner(whole, trained):
    """Return the best checkpoint as a captioner file."""
    (best,) = trained.glob("best_*.pth")
    file = trained / "captioner.safetensors"
    args = [whole / "config.py", best, "--out", file, "--cfg-options", *TINY]
    assert run("export", *args, log=trained / "log").code == 0
    return file


def rows_of(path):
    rows = json.loads(path.read_text())
    return {
        (r["beam_size"], "ranks" if r["rerank"] == "ranks" else r["rerank_weight"]): r for r in rows
    }


def test_tuning_scores_settings_as_a_test_with_them_would(whole, captioner, tmp_path):
    table = tmp_path / "table.json"
    args = [whole / "config.py", captioner, *TUNE, "--device", "cpu", "--out", table]
    result = run("tune", *args, "--cfg-options", *TINY, log=tmp_path / "log")
    assert result.code == 0, result.output
    rows = rows_of(table)
    assert [*rows] == [(1, 0.0), (4, 0.0), (4, 5.0), (4, 300.0), (4, "ranks")]
    size, order = max(rows, key=lambda key: rows[key]["CIDEr"])
    best = rows[size, order]
    assert "generated images of held-out captions, the validation split of" in result.output
    line = next(line for line in result.output.splitlines() if line.endswith("best"))
    shown = order if order == "ranks" else f"{order:g}"
    assert line.split()[:3] == [str(size), "0", shown]
    assert f"model.decoding.rerank={best['rerank']}" in result.output
    assert f"model.decoding.rerank_weight={best['rerank_weight']}" in result.output
    cfg = Config.fromfile(whole / "config.py")
    cfg.test_dataloader = cfg.val_dataloader
    cfg.test_dataloader.update(batch_size=7, num_workers=0, persistent_workers=False)
    cfg.test_evaluator, cfg.test_cfg = cfg.val_evaluator, {}
    cfg.dump(tmp_path / "test.py")
    for (beam, weight), row in rows.items():
        work = tmp_path / f"{beam}_{weight}"
        args = [tmp_path / "test.py", captioner, "--work-dir", work, "--cfg-options", *TINY]
        args += [f"model.decoding.beam_size={beam}"]
        if weight:
            setting = "rerank" if weight == "ranks" else "rerank_weight"
            args += [f"model.decoding.{setting}={weight}"]
            args += ["model.backbone.type=pcm_plugin.OpenCLIPBackbone"]
            args += [f"model.backbone.model_name={cfg.clip.model_name}"]
        result = run("test", *args, log=tmp_path / "log")
        assert result.code == 0, result.output
        metrics = json.loads((work / "metrics.json").read_text())["metrics"]
        assert metrics["caption/CIDEr"] == pytest.approx(row["CIDEr"], abs=1e-6)
        assert metrics["caption/BLEU-4"] == pytest.approx(row["BLEU-4"], abs=1e-6)
    assert rows[4, 300.0]["CIDEr"] != rows[4, 0.0]["CIDEr"]
    assert rows[4, "ranks"]["CIDEr"] not in (rows[4, 0.0]["CIDEr"], rows[4, 300.0]["CIDEr"])


def test_the_best_settings_are_stored_in_the_captioner(whole, captioner, tmp_path):
    copy = shutil.copy(captioner, tmp_path / "captioner.safetensors")
    shutil.copytree(captioner.with_suffix(".clip"), tmp_path / "captioner.clip")
    args = [whole / "config.py", copy, *TUNE[:4], "--beam-sizes", 4, "--metric", "ROUGE-L"]
    table = tmp_path / "table.json"
    args += ["--write", copy, "--device", "cpu", "--out", table, "--length-penalties", 1]
    result = run("tune", *args, "--cfg-options", *TINY, log=tmp_path / "log")
    assert result.code == 0, result.output
    best = max(json.loads(table.read_text()), key=lambda row: row["ROUGE-L"])
    before, after = load_captioner(captioner), load_captioner(copy)
    assert after.decoding == before.decoding.updated(
        {key: best[key] for key in ("beam_size", "rerank", "rerank_weight", "length_penalty")}
    )
    assert after.decoding.length_penalty == 1
    state = after.state_dict()
    assert all((state[key] == value).all() for key, value in before.state_dict().items())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--write", "none.safetensors"],
            "--write: no captioner at none.safetensors; write one wi",
        ),
        (["--write", "CHECKPOINT"], "--write must be a captioner file of pcm export, got"),
        (["--beam-sizes", 0], "`beam_size` must be at least 1, got `0`"),
        (["--rerank-weights", "nan"], "`rerank_weight` must be a finite number, got `nan`"),
        (["--out", "table.txt"], "the name of a table must end in .json, .jsonl, .csv, got table"),
        (["--cfg-options", "val_dataloader=None"], "has no val_dataloader: make the data set with"),
    ],
)
def test_invalid_options_are_reported_before_the_search(whole, trained, tmp_path, words, message):
    (best,) = trained.glob("best_*.pth")
    words = [best if word == "CHECKPOINT" else word for word in words]
    result = run("tune", whole / "config.py", best, *words, log=tmp_path / "log")
    assert result.code == 1
    assert message in result.output
    assert "captions of val" not in result.output
