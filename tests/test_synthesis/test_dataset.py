import json
import math
import random
import re
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image

from pcm_plugin.commands.build_commands import check_inputs
from pcm_plugin.engine.feature_checks import check_features
from pcm_plugin.formats.concept_set import load_concepts
from pcm_plugin.formats.corrections import CorrectionFile
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.pair_selection import PairSelection
from pcm_plugin.formats.vocabulary import Vocabulary
from pcm_plugin.synthesis.pipeline.dataset_config import (
    noam_settings,
    remove_configs,
    training_length,
    warmup_iterations,
    write_configs,
)
from pcm_plugin.synthesis.pipeline.recipes import load_recipe
from pcm_plugin.synthesis.refine.pairs import refine_pairs
from pcm_plugin.synthesis.refine.settings import RefineSettings
from tests.builders import build_clip, build_pipeline, build_sentence_encoder
from tests.test_docs.pages import ROOT, code_blocks
from tests.test_tools.commands import run, start

THINGS = ["dog", "cat", "car", "tree", "house"]
CAPTIONS = [f"the {thing} runs next to a {other}" for thing in THINGS for other in THINGS]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Captions, and a recipe with tiny models."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "captions.txt").write_text("\n".join(CAPTIONS))
    recipe = {
        "vocabulary": {"min_count": 2},
        "concepts": {"min_count": 2},
        "generate": {
            "pipeline": str(build_pipeline(folder / "pipeline")),
            "steps": 2,
            "format": "png",
            "shard_size": 4,
            "batch_size": 2,
        },
        "extract": {"model": build_clip(folder / "clip"), "batch_size": 4},
        "refine": {"keep": 0.8, "chunk": 4},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def arguments(inputs, out):
    recipe = inputs / "tiny.yaml"
    return [inputs / "captions.txt", "--recipe", recipe, "--out", out, "--device", "cpu"]


def make(inputs, out, *args, processes=1, log=None):
    log = log or out.with_suffix(".log")
    args = [*arguments(inputs, out), *args]
    return run("make-dataset", *args, log=log, processes=processes, launcher=False)


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file() and path.name[0] != "."
    }


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    """Data set of an uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "data"
    result = make(inputs, out)
    assert result.code == 0, result.output
    return out


def test_the_folder_is_ready_for_training(whole):
    vocabulary = Vocabulary.from_file(whole / "corpus" / "vocabulary.txt")
    assert set(vocabulary.words) == {*THINGS, "the", "runs", "next", "to", "a"}
    assert set(load_concepts(whole / "corpus" / "concepts.safetensors").words) >= {"dog", "tree"}
    store = FeatureStore(whole / "train_store")
    assert [store.captions(i) for i in range(len(store))] == [[text] for text in CAPTIONS]
    cfg = Config.fromfile(whole / "config.py")
    check_inputs(cfg, ["train"])
    check_features(cfg, ["train"])
    assert (cfg.param_scheduler.warmup, cfg.train_dataloader.drop_last) == (100, False)


@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_ranks_makes_the_same_folder(inputs, whole, tmp_path, processes):
    result = make(inputs, tmp_path / "data", processes=processes)
    assert result.code == 0, result.output
    assert contents(tmp_path / "data") == contents(whole)


def test_another_model_and_a_sentence_encoder_assign_the_captions(inputs, whole, tmp_path):
    encoder = build_sentence_encoder(tmp_path / "encoder")
    args = ["--set", f"assign.model={build_clip(tmp_path / 'assigning', seed=1)}"]
    args += ["assign.batch_size=5", f"refine.sentence_encoder={encoder}", "refine.score_scale=5.0"]
    out = shutil.copytree(whole, tmp_path / "data")
    result = make(inputs, out, *args, log=tmp_path / "log")
    assert result.code == 1
    assert "pairs was made with other settings (assign_store: None there" in result.output
    shutil.rmtree(out / "pairs")
    result = make(inputs, out, *args, processes=2)
    assert result.code == 0, result.output
    store, assigning = FeatureStore(out / "train_store"), FeatureStore(out / "assign_store")
    assert assigning.num_patches == 0
    settings = RefineSettings(keep=0.8, sentence_encoder=str(encoder), score_scale=5.0)
    expected = refine_pairs(
        *(out / "train_store", settings, tmp_path / "pairs"),
        **dict(chunk=4, device="cpu", assign_store=out / "assign_store"),
    )
    written = PairSelection.from_file(out / "pairs" / "pairs.safetensors", store.identity)
    assert all(map(np.array_equal, written, expected))
    assert (written.image != store.caption_to_image(written.caption)).any()
    result = make(inputs, tmp_path / "data", *args, "--dry-run", log=tmp_path / "log")
    assert "assign                 25 images, 25 done; 800.0 B" in result.output, result.output
    assert "sentences              25 captions, 25 done; 800.0 B" in result.output
    assert "refine                 50 rows, 50 done" in result.output
    assert train(out, tmp_path / "run").code == 0
    remove_configs(out)
    args[-2] = "refine.sentence_encoder=/nowhere/encoder"
    result = make(inputs, tmp_path / "new", *args)
    assert result.code == 1
    assert "no folder /nowhere/encoder" in result.output
    assert not list((tmp_path / "new").rglob("shard-*"))


STAGES = ("synthetic", "train_store", "pairs")
# Approximate duration of each stage.
SECONDS = {"synthetic": 0.6, "train_store": 0.4, "pairs": 0.15}


def without(whole, out, stage):
    """Copy a data set without the results of a stage and those after it."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(whole, out)
    remove_configs(out)
    for later in STAGES[STAGES.index(stage) :]:
        shutil.rmtree(out / later)


def begun(out):
    """The stage that is being made, None if all are finished or none is begun."""
    for stage in STAGES:
        manifest = out / stage / "manifest.json"
        if not manifest.exists():
            return None
        facts = json.loads(manifest.read_text())
        if len(facts["shards"]) < facts["num_expected"]:
            return stage
    return None


@pytest.mark.parametrize(("processes", "kills"), [(1, 8), (2, 8)])
def test_killed_at_any_moment_it_ends_with_the_same_bytes(
    inputs, whole, tmp_path, processes, kills
):
    moments = random.Random(processes)
    out, log, expected = tmp_path / "data", tmp_path / "log", contents(whole)
    killed = Counter()
    while sum(killed.values()) < kills or min(killed[stage] for stage in STAGES) < kills // 4:
        aim = min(STAGES, key=lambda stage: killed[stage])
        without(whole, out, aim)
        for _ in range(2):  # two kills in a row, and then to the end
            children = start(
                "make-dataset",
                *arguments(inputs, out),
                log=log,
                processes=processes,
                launcher=False,
            )
            while begun(out) != aim and any(child.exitcode is None for child in children):
                time.sleep(0.001)
            time.sleep(moments.uniform(0, SECONDS[aim]))
            stage = begun(out)
            # Of several processes one is lost; the others make what it had begun, or are lost too.
            lost = children if moments.random() < 0.7 else children[:1]
            for child in lost:
                child.kill()
            killed[stage] += lost[0].exitcode is None and stage is not None
            for child in children:
                child.join(100)
            assert all(child.exitcode in (0, -9) for child in children), log.read_text()
        result = make(inputs, out)
        assert result.code == 0, result.output
        assert contents(out) == expected


def test_a_second_run_makes_nothing_and_other_settings_are_refused(inputs, whole):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("shard-*")}
    assert make(inputs, whole).code == 0
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("shard-*")} == before
    result = make(inputs, whole, "--set", "generate.steps=3")
    assert result.code == 1
    assert "settings (steps: 2 there, 3 now)" in result.output
    result = make(inputs, whole, "--set", "vocabulary.min_count=1")
    assert "settings (vocabulary.min_count: 2 there, 1 now)" in result.output


def test_settings_of_the_command_line(inputs, tmp_path):
    args = ["--set", "generate.prompt=a photo of {}, big", "generate.steps=1"]
    assert make(inputs, tmp_path / "data", *args, "--limit", 17).code == 0
    manifest = json.loads((tmp_path / "data" / "synthetic" / "manifest.json").read_text())
    assert manifest["settings"]["prompt"] == "a photo of {}, big"
    result = make(inputs, tmp_path / "data", "--set", "generate.steps", log=tmp_path / "log")
    assert "--set must be KEY=VALUE" in result.output


def test_later_stages_need_the_same_corpus(inputs, whole, tmp_path):
    result = make(inputs, tmp_path / "new", "--stages", "generate", log=tmp_path / "log")
    assert "run the stage corpus too" in result.output
    args = ["--stages", "generate", "--limit", 3]
    result = make(inputs, whole, *args, log=tmp_path / "log")
    assert "was made from other captions: run the stage corpus too" in result.output
    result = make(inputs, whole, "--limit", 3, log=tmp_path / "log")
    assert "was made from 25 captions that are not the first ones of this file" in result.output


def test_another_caption_file_changes_nothing(inputs, whole, tmp_path):
    before = contents(whole)
    (tmp_path / "other.txt").write_text("\n".join(["something else", *CAPTIONS, "and more"]))
    args = [tmp_path / "other.txt", *arguments(inputs, whole)[1:]]
    result = run("make-dataset", *args, log=tmp_path / "log", launcher=False)
    assert result.code == 1
    assert "was made from 25 captions that are not the first ones of this file" in result.output
    assert contents(whole) == before
    # The same captions with other line endings are equal.
    (tmp_path / "same.txt").write_text("\r\n".join([*CAPTIONS, "", ""]))
    args = [tmp_path / "same.txt", *arguments(inputs, whole)[1:], "--limit", 99]
    assert run("make-dataset", *args, log=tmp_path / "log", launcher=False).code == 0
    assert contents(whole) == before


def test_a_small_data_set_grows(inputs, whole, tmp_path):
    out = tmp_path / "data"
    assert make(inputs, out, "--limit", 17, "--stages", "corpus", "generate", "extract").code == 0
    first = {path: path.stat().st_mtime_ns for path in out.rglob("shard-0000[01].*")}
    assert len(first) == 2 * 3
    assert Config.fromfile(out / "config.py").train_dataloader.dataset.pairs is None
    # Until all stages have run there is no config: the features are not those of the corpus.
    assert make(inputs, out, "--stages", "corpus", "generate").code == 0
    assert not list(out.glob("*.py"))
    result = make(inputs, out)
    assert result.code == 0, result.output
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert contents(out) == contents(whole)


def test_custom_words_and_vocabulary(inputs, tmp_path):
    (tmp_path / "words.txt").write_text("Hund\nKatze\nAuto\nBaum\nHaus\n")
    (tmp_path / "vocabulary.txt").write_text("the\ndog\n")
    settings = [f"concepts.words={tmp_path}/words.txt", "concepts.templates=['simple']"]
    settings += [f"vocabulary.file={tmp_path}/vocabulary.txt"]
    args = ["--stages", "corpus", "--set", *settings]
    assert make(inputs, tmp_path / "data", *args).code == 0
    concepts = load_concepts(tmp_path / "data/corpus/concepts.safetensors")
    assert concepts.words == ["Hund", "Katze", "Auto", "Baum", "Haus"]
    assert len(concepts.templates) == 7
    assert Vocabulary.from_file(tmp_path / "data/corpus/vocabulary.txt").words == ["the", "dog"]
    with open(tmp_path / "words.txt", "a") as file:
        file.write("Boot\n")
    result = make(inputs, tmp_path / "data", *args)
    assert "settings (concepts.words: 'sha256" in result.output
    (tmp_path / "stop.txt").write_text("cat\n")
    args = ["--stages", "corpus", "--set", f"concepts.stop_list={tmp_path}/stop.txt"]
    assert make(inputs, tmp_path / "other", *args).code == 1, "too few are left"


def test_captions_that_lose_all_their_words_are_refused(inputs, tmp_path):
    (tmp_path / "vocabulary.txt").write_text("hund\nkatze\n")
    setting = f"vocabulary.file={tmp_path}/vocabulary.txt"
    for more in ([], ["--dry-run"]):
        result = make(inputs, tmp_path / "data", "--set", setting, *more, log=tmp_path / "log")
        assert result.code == 1
        last = result.output.splitlines()[-1]
        assert f"{setting}: 25 of 25 captions (100.0 %) have no word that is in the voc" in last
        assert "'the dog runs next to a dog'" in last
        assert "--set vocabulary.max_unknown_captions=SHARE" in last
    accepted = ["--stages", "corpus", "--set", setting, "vocabulary.max_unknown_captions=1.0"]
    result = make(inputs, tmp_path / "data", *accepted, log=tmp_path / "log")
    assert result.code == 0, result.output
    assert "175 of 175 words (100.0 %) are not in the vocabulary; 25 of 25" in result.output
    # The data do not depend on the limit.
    accepted[-1] = "vocabulary.max_unknown_captions=0.1"
    result = make(inputs, tmp_path / "data", *accepted, log=tmp_path / "log")
    assert "settings" not in result.output


def test_rare_words_become_unk(inputs, tmp_path):
    settings = ["vocabulary.unk=True", "vocabulary.min_count=6", "concepts.min_count=1"]
    args = ["--stages", "corpus", "--set", *settings]
    result = make(inputs, tmp_path / "data", *args)
    assert result.code == 0, result.output
    assert Vocabulary.from_file(tmp_path / "data/corpus/vocabulary.txt").words[-1] == "UNK"


def test_invalid_inputs_are_reported_before_generation(inputs, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "val.csv").write_text("caption,image\na dog,1.jpg\n")
    real = ["--val", tmp_path / "photos", tmp_path / "val.csv"]
    for args, message in (
        (real, "photos/1.jpg nor the files after it exist"),
        (["--set", "extract.pool=3"], "divide the 4 x 4 patches"),
        (
            ["--set", "extract.batch_size=0"],
            "extract.batch_size must be an integer of at least 1, got 0",
        ),
        (
            ["--set", "concepts.templates=a {}"],
            "templates must be a list of texts, got the text 'a {}'",
        ),
        (["--set", "concepts.words=none.txt"], "concepts.words: no file none.txt"),
        (["--set", "vocabulary.min_count=99"], "(--set vocabulary.min_count=1)"),
        (["--set", "concepts.min_count=99"], "(--set concepts.min_count=1, or concepts.words=FILE"),
        (["--set", "concepts.max_nouns=3"], "but the model uses the 5 nearest"),
        (["--set", "extract.clip_score_source=annotation"], "annotations have no CLIP scores"),
        (["--set", "generate.negative_prompt=dark,blurred"], "negative_prompt must be text, got ["),
        (["--set", "generate.offload=model"], "offload='model' needs a GPU"),
    ):
        result = make(inputs, tmp_path / "data", *args, log=tmp_path / "log")
        assert result.code == 1
        assert message in result.output
        assert not list(tmp_path.rglob("shard-*"))


def test_files_of_real_images_are_read_with_the_same_options(inputs, tmp_path):
    texts = [f"une {thing} près d'un {other}" for thing in THINGS for other in THINGS]
    table = "\n".join(["image,Caption", *(f"{i}.png,{text}" for i, text in enumerate(texts))])
    (tmp_path / "captions.csv").write_text(table, encoding="cp1252")
    (tmp_path / "photos").mkdir()
    for name in "xy":
        Image.new("RGB", (16, 16)).save(tmp_path / "photos" / f"{name}.png")
    rows = ["image,Caption", "x.png,un café", "y.png,a ball, on the floor", "y.png,a bed"]
    (tmp_path / "val.csv").write_text("\n".join(rows), encoding="cp1252")
    args = [tmp_path / "captions.csv", "--recipe", inputs / "tiny.yaml", "--out", tmp_path / "data"]
    args += ["--device", "cpu", "--val", tmp_path / "photos", tmp_path / "val.csv"]
    args += ["--stages", "corpus", "--set", "concepts.min_count=1"]
    for message, *more in (
        ("captions.csv: no column 'caption' in the first line", "--skip-invalid"),
        ("not UTF-8 (0xE8 at byte 30), probably Windows-1252 or", "--column", "Caption"),
        ("val.csv:3: 3 fields, the first line has 2 (--skip-invalid", "--column", "Caption"),
    ):
        encoding = [] if "UTF-8" in message else ["--encoding", "cp1252"]
        result = run("make-dataset", *args, *more, *encoding, log=tmp_path / "log")
        assert (result.code, message in result.output) == (1, True), result.output
        assert not (tmp_path / "data").exists()
    options = ["--column", "Caption", "--encoding", "cp1252", "--skip-invalid"]
    result = run("make-dataset", *args, *options, log=tmp_path / "log")
    assert result.code == 0, result.output
    assert "val.csv (table): 2 captions, 1 invalid, skipped" in result.output
    assert "près" in Vocabulary.from_file(tmp_path / "data/corpus/vocabulary.txt").words


def test_real_images_of_each_split(inputs, tmp_path):
    images = []
    (tmp_path / "photos").mkdir()
    # Two of each: CIDEr of a single image is undefined, and chooses no checkpoint.
    for i, split in enumerate(("train", "val", "test") * 2):
        Image.new("RGB", (16, 16)).save(tmp_path / "photos" / f"{i}.png")
        sentences = [{"raw": f"{'a cat of' * (i > 2)} a {split} dog", "sentid": i}]
        images.append({"filename": f"{i}.png", "split": split, "sentences": sentences})
    (tmp_path / "karpathy.json").write_text(json.dumps({"images": images}))
    real = [tmp_path / "photos", tmp_path / "karpathy.json"]
    args = ["--val", *real, "--test", *real, "--limit", 17]
    result = make(inputs, tmp_path / "data", *args)
    assert result.code == 0, result.output
    for split in ("val", "test"):
        store = FeatureStore(tmp_path / "data" / f"{split}_store")
        expected = [[f"a {split} dog"], [f"a cat of a {split} dog"]]
        assert [store.captions(i) for i in range(len(store))] == expected
    result = train(tmp_path / "data", tmp_path / "run")
    assert result.code == 0, result.output
    assert "caption/CIDEr" in result.output
    assert list((tmp_path / "run").glob("best_caption_CIDEr_epoch_1.pth"))


def test_a_dry_run_measures_and_writes_nothing(inputs, whole, tmp_path):
    result = make(inputs, tmp_path / "data", "--dry-run", log=tmp_path / "log")
    assert result.code == 0, result.output
    assert "25 pairs" in result.output
    assert "10 words, 5 concepts" in result.output
    assert "generate               25 images, 0 done;" in result.output
    assert re.search(r"refine +50 rows, 0 done; .* a second by one process: ", result.output)
    assert re.search(r"disk: [\d.]+ kB needed, [\d.]+ GB free", result.output)
    assert not (tmp_path / "data").exists()
    (tmp_path / "val.csv").write_text("caption,file_name\na dog,1.png\n")
    Image.new("RGB", (16, 16)).save(tmp_path / "1.png")
    real = ["--val", tmp_path, tmp_path / "val.csv"]
    result = make(inputs, whole, "--dry-run", *real, processes=2, log=tmp_path / "log")
    assert result.output.count("25 pairs") == 1
    assert "extract train          25 images, 25 done;" in result.output
    assert "0 s left" in result.output
    assert "extract val             1 images, 0 done;" in result.output
    changed = ["--set", "generate.steps=3"]
    result = make(inputs, whole, "--dry-run", *changed, log=tmp_path / "log")
    assert "settings (steps: 2 there, 3 now)" in result.output


def test_the_config_describes_the_folder(inputs, whole, tmp_path):
    cfg = Config.fromfile(whole / "config.py")
    assert cfg.val_dataloader is cfg.val_cfg is cfg.val_evaluator is None
    assert Path(cfg.train_dataloader.dataset.pairs).samefile(whole / "pairs" / "pairs.safetensors")
    model = MODELS.build(cfg.model)
    store = FeatureStore(whole / "train_store")
    assert model.neck.patch_proj.in_features == store.patch_dim
    assert cfg.model.neck.num_patches == store.num_patches
    assert cfg.clip.model_name == load_recipe(str(inputs / "tiny.yaml")).extract.model
    real = shutil.copytree(whole, tmp_path / "data")
    shutil.copytree(real / "train_store", real / "val_store")
    settings = ["--set", "model.neck.top_concepts=3", "model.loss.clip_weight=1.5"]
    assert make(inputs, real, *settings).code == 0
    cfg = Config.fromfile(real / "config.py")
    assert Path(cfg.val_dataloader.dataset.store).samefile(real / "val_store")
    assert (cfg.val_evaluator.type, cfg.test_evaluator) == ("pcm_plugin.CaptionMetric", None)
    assert (cfg.model.neck.top_concepts, cfg.model.loss.clip_weight) == (3, 1.5)
    for loop in ("train", "val"):
        check_inputs(cfg, [loop])
    for part in ("train_store", "val_store", "pairs"):
        shutil.rmtree(real / part)
    result = make(inputs, real, "--set", "extract.patch_mode=sclip")
    assert f"{real}/validation was made for other features" in result.output
    shutil.rmtree(real / "validation")
    assert make(inputs, real, "--set", "extract.patch_mode=sclip").code == 0
    cfg = Config.fromfile(real / "config.py")
    store = FeatureStore(real / "train_store")
    assert cfg.clip.patch_mode == store.settings["patch_mode"] == "sclip"
    check_features(cfg, ["train"])


def test_configs_name_files_of_the_repository_relative_to_themselves(whole):
    """This allows a data set inside the repository to be moved together with it."""
    data = whole.parent / "toy"
    shutil.copytree(whole / "train_store", data / "train_store")
    write_configs(load_recipe("toy"), data, [])
    for name in ("config.py", "syntic.py"):
        assert not re.search(f"[\"':]{re.escape(str(Path.cwd()))}", (data / name).read_text())
        cfg = Config.fromfile(data / name)
        clip = Path(cfg.clip.model_name.removeprefix("local-dir:"))
        assert clip.samefile("pcm_plugin/toyworld/assets/clip")
        assert cfg.model.decoder.embed_dims == 128


def train(data, work, name="config", epochs=1):
    """Train a small captioner by a config of the data set."""
    args = [data / f"{name}.py", "--resume", "--work-dir", work, "--cfg-options"]
    args += [f"train_cfg.max_epochs={epochs}", "train_dataloader.num_workers=0"]
    parts = ("neck", "encoder", "decoder")
    args += [f"model.{part}.embed_dims=32" for part in parts] if name == "config" else []
    args += [f"model.{part}.num_layers=1" for part in parts[1 if name == "config" else 2 :]]
    return run("train", *args, log=work.with_suffix(".log"))


def test_it_trains_without_real_images(whole, tmp_path):
    result = train(whole, tmp_path / "run")
    assert result.code == 0, result.output
    assert (tmp_path / "run" / "epoch_1.pth").is_file()


def test_the_weights_are_averaged(inputs, whole, tmp_path):
    data = shutil.copytree(whole, tmp_path / "data")
    assert make(inputs, data, "--set", "training.average_epochs=4").code == 0
    cfg = Config.fromfile(data / "config.py")
    assert cfg.default_hooks.average.epochs == 4
    assert train(data, tmp_path / "run").code == 0
    assert train(data, tmp_path / "run", epochs=2).code == 0
    assert train(data, tmp_path / "whole", epochs=2).code == 0
    first, resumed, second = (
        torch.load(tmp_path / f, weights_only=False)
        for f in ("run/epoch_1.pth", "run/epoch_2.pth", "whole/epoch_2.pth")
    )
    key = "decoder.output.weight"
    # One iteration per epoch; the average starts with the weights after the first.
    last = second["ema_state_dict"][f"module.{key}"]
    averaged = torch.lerp(first["state_dict"][key], last, 1 - math.exp(-1 / 4))
    torch.testing.assert_close(second["state_dict"][key], averaged)
    assert not torch.equal(averaged, last)
    for part in ("state_dict", "ema_state_dict"):
        assert all(torch.equal(resumed[part][k], v) for k, v in second[part].items())


@pytest.mark.parametrize(
    ("count", "least", "length"),
    [
        (1000, None, None),
        # 31 full batches per epoch; validated about twelve times.
        (1000, 4500, {"max_epochs": 146, "val_interval": 12}),
        (20, 30, {"max_epochs": 30, "val_interval": 2}),
        (20, 12, None),
        (100_000, 4500, None),
    ],
)
def test_a_small_corpus_is_trained_for_more_epochs(count, least, length):
    base = Config.fromfile("configs/pcm_custom.py")
    settings = training_length(base, count, least)
    assert settings == ({} if length is None else {"train_cfg": length})
    epochs = length and length["max_epochs"]
    warmup = noam_settings(base, count, 512, epochs)["param_scheduler"]["warmup"]
    assert warmup == warmup_iterations(base, count * (epochs or 12) // 12, 10_000)


def test_a_recipe_sets_the_length_of_a_training(inputs, whole, tmp_path):
    data = shutil.copytree(whole, tmp_path / "data")
    assert make(inputs, data, "--set", "training.min_iterations=30").code == 0
    cfg = Config.fromfile(data / "config.py")
    per_epoch = math.ceil(len(FeatureStore(data / "train_store")) / 32)
    assert cfg.train_cfg.max_epochs == math.ceil(30 / per_epoch)
    result = make(inputs, data, "--set", "training.min_iterations=0")
    assert result.code == 1
    assert "min_iterations must be an integer above 0 or None, got 0" in result.output


def test_syntic_trains_on_the_same_folder_once_its_features_are_refined(whole, tmp_path):
    data = shutil.copytree(whole, tmp_path / "data")
    result = train(data, tmp_path / "run", "syntic")
    assert result.code == 1
    (command,) = re.findall("made by: pcm (refine .*)", result.output)
    result = run(*command.split(), log=tmp_path / "log")
    assert result.code == 0, result.output
    result = train(data, tmp_path / "run", "syntic")
    assert result.code == 0, result.output
    assert (tmp_path / "run" / "epoch_1.pth").is_file()


def test_training_on_corrections(inputs, whole, tmp_path, monkeypatch):
    """The documented commands lead from corrected captions to a training on both stores."""
    data = shutil.copytree(whole, tmp_path / "data" / "mine")
    monkeypatch.chdir(tmp_path)
    file = CorrectionFile(Path("corrections.jsonl"))
    for n, text in enumerate(["a dog next to the zebra", "the cat runs", "the red tree runs"]):
        Image.new("RGB", (40, 30), (80 * n, 0, 0)).save("upload.png")
        image = Path("upload.png").read_bytes()
        file.save(image, "a car", "the house", "upload.png")
        file.save(image, text, "the house", "upload.png")
    page = ROOT / "docs" / "your_own_captions.md"
    (block,) = [block for block in code_blocks(page, "bash") if "corrections.jsonl" in block]
    block = block.replace("--model ViT-B-32-quickgelu --pretrained openai", "--model CLIP")
    _, *commands = [line.replace("$D", "data/mine") for line in block.splitlines()]
    clip = load_recipe(inputs / "tiny.yaml").extract.model
    tiny = ["train_cfg.max_epochs=1", "model.decoder.num_layers=1", "model.encoder.num_layers=1"]

    def pcm(command, *more):
        words = [*command.split()[1:], *more]
        words = [clip if word == "CLIP" else word for word in words]
        result = run(*words, log=tmp_path / "log", launcher=False)
        assert result.code == 0, result.output
        return result.output

    extract, merge, training = commands
    pcm(extract, "--device", "cpu")
    # These captions are too few to hold some out; the pairs are refined instead.
    pcm(merge.replace("validation/train_pairs", "pairs/pairs"))
    store = FeatureStore("data/mine/corrected_store")
    assert store.num_captions == len(CAPTIONS) + 3
    assert [store.captions(len(CAPTIONS) + n) for n in range(3)] == [
        ["a dog next to the zebra"],
        ["the cat runs"],
        ["the red tree runs"],
    ]
    output = pcm(training, *tiny)
    refined = PairSelection.from_file(
        "data/mine/pairs/pairs.safetensors", FeatureStore("data/mine/train_store").identity
    )
    count = len(refined.caption) + 3
    assert re.search(rf"2 of \d+ words .* not in the vocabulary; 0 of {count} captions", output)

    # More words, refined pairs, and a second epoch after the first one.
    vocabulary = data / "corpus" / "vocabulary.txt"
    Path("words.txt").write_text(vocabulary.read_text() + "zebra\nred\n")
    among = "--among data/mine/corrected_store/pairs.safetensors"
    pcm(
        f"pcm refine data/mine/corrected_store {among} --out data/mine/corrected_pairs --device cpu"
    )
    pairs = "train_dataloader.dataset.pairs=data/mine/corrected_pairs/pairs.safetensors"
    more = [*tiny, "model.vocabulary=words.txt", pairs]
    training = training.replace("work_dirs/corrected", "work_dirs/words")
    assert "0 of " in pcm(training, *more).split("Training captions: ")[1].split("words")[0]
    pcm(training, *more, "train_cfg.max_epochs=2", "--resume")
    assert Path("work_dirs/words/epoch_2.pth").is_file()


def test_other_settings_of_corrections_are_refused(inputs, whole, tmp_path):
    file = CorrectionFile(tmp_path / "mine.jsonl")
    Image.new("RGB", (40, 30)).save(tmp_path / "x.png")
    file.save((tmp_path / "x.png").read_bytes(), "a dog", "a cat", "x.png")
    clip = load_recipe(inputs / "tiny.yaml").extract.model
    args = [file.folder, "--captions", file.path, "--model", clip, "--dtype", "float32"]
    args += ["--out", tmp_path / "store", "--device", "cpu"]
    result = run("extract", *args, log=tmp_path / "log", launcher=False)
    assert result.code == 0, result.output
    stores = [whole / "train_store", tmp_path / "store"]
    result = run("store", "merge", *stores, "--out", tmp_path / "both", log=tmp_path / "log")
    assert result.code == 1
    assert "made with different settings (dtype: 'float16' and 'float32')" in result.output
