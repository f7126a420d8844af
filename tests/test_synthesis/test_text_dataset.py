"""Data sets of captions alone: features, configs, training, export and captions of images."""

import itertools
import json
import re
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
import yaml
from mmengine.config import Config
from PIL import Image

from pcm_plugin.commands.build_commands import check_inputs
from pcm_plugin.engine.config_checks import check_config
from pcm_plugin.engine.feature_checks import check_features
from pcm_plugin.errors import UserError
from pcm_plugin.formats.concept_set import load_concepts
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.vocabulary import Vocabulary
from pcm_plugin.formats.vocabulary_file import load_vocabulary
from pcm_plugin.models.captioner_file import load_captioner
from pcm_plugin.synthesis.extract.encode_captions import SHARD_SIZE, encode_captions
from pcm_plugin.synthesis.extract.settings import ExtractSettings
from pcm_plugin.synthesis.pipeline.language_model import build_gpt2
from pcm_plugin.synthesis.pipeline.recipes import load_recipe
from pcm_plugin.toyworld.render import render
from pcm_plugin.toyworld.world import build_world, unseen_scenes
from tests.builders import build_clip, build_pipeline
from tests.test_tools.commands import run

THINGS = ["dog", "cat", "car", "tree", "house"]
TEXTS = [
    f"{start} {thing} {verb} next to {article} {color} {other}"
    for start, thing, verb, article, color, other in itertools.product(
        ("the", "a", "a photo of the"),
        THINGS,
        ("runs", "stands"),
        ("a", "the"),
        ("red", "green", "blue", "house on the"),
        THINGS,
    )
]
CONFIGS = ("config", "capdec", "decap")
TAGGER = "tests.toy_languages:find_chinese_nouns"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Return a folder with 1,200 captions, and a text recipe with a tiny CLIP."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "captions.txt").write_text("\n".join(TEXTS))
    recipe = {
        "generate": None,
        "extract": {"model": build_clip(folder / "clip"), "batch_size": 4},
        "language_model": {"layers": 1, "width": 16, "heads": 2},
    }
    (folder / "text.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def make(inputs, out, *args, processes=1, log=None, recipe="text.yaml"):
    words = [inputs / "captions.txt", "--recipe", inputs / recipe, "--out", out, "--device", "cpu"]
    log = log or out.with_suffix(".log")
    return run("make-dataset", *words, *args, log=log, processes=processes, launcher=False)


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    """Return the data set of an uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "data"
    result = make(inputs, out)
    assert result.code == 0, result.output
    assert [line.split() for line in result.output.splitlines()[-3:]] == [
        ["pcm", "train", f"{out}/config.py", "#", "prefix", "captioner,", "the", "default"],
        ["pcm", "train", f"{out}/capdec.py", "#", "CapDec"],
        ["pcm", "train", f"{out}/decap.py", "#", "DeCap"],
    ]
    return out


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file() and path.name[0] != "."
    }


def reference_features(folder, texts):
    """Return the text embeddings of open_clip's own model, which pads all texts alike."""
    clip = open_clip.create_model(f"local-dir:{folder}").eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    with torch.inference_mode():
        return F.normalize(clip.encode_text(tokenizer(texts)), dim=-1)


def test_the_store_holds_the_features_of_the_captions_alone(inputs, whole):
    assert sorted(path.name for path in whole.iterdir()) == sorted(
        ["corpus", "train_store", *(f"{name}.py" for name in CONFIGS)]
    )
    store = FeatureStore(whole / "train_store")
    assert not store.has_images
    assert [store.captions(i) for i in range(len(store))] == [[text] for text in TEXTS]
    rows = [0, 7, 555, SHARD_SIZE - 1, SHARD_SIZE, len(TEXTS) - 1]
    expected = reference_features(inputs / "clip", [TEXTS[i] for i in rows])
    torch.testing.assert_close(
        store.read_rows("caption_feats", rows), expected, atol=1e-3, rtol=1e-3
    )
    assert set(Vocabulary.from_file(whole / "corpus/vocabulary.txt").words) >= {*THINGS, "next"}
    assert set(load_concepts(whole / "corpus/concepts.safetensors").words) >= {*THINGS}


def test_the_caption_template_is_encoded(inputs, tmp_path):
    (tmp_path / "captions.txt").write_text("a dog\nthe cat runs")
    settings = ExtractSettings(
        f"local-dir:{inputs / 'clip'}", dtype="float32", caption_template="a photo of {}"
    )
    encode_captions(tmp_path / "captions.txt", settings, tmp_path / "store", "cpu")
    expected = reference_features(inputs / "clip", ["a photo of a dog", "a photo of the cat runs"])
    feats = FeatureStore(tmp_path / "store").read_rows("caption_feats", [0, 1])
    torch.testing.assert_close(feats, expected)
    (tmp_path / "captions.txt").write_text("a dog\nthe cat stands")
    with pytest.raises(ValueError, match="was made from other samples"):
        encode_captions(tmp_path / "captions.txt", settings, tmp_path / "store", "cpu")
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        encode_captions(tmp_path / "captions.txt", settings, tmp_path / "new", "cpu", limit=0)


def test_captions_in_another_language(inputs, tmp_path):
    folder, out = tmp_path / "inputs", tmp_path / "data"
    shutil.copytree(inputs, folder)
    kinds = ("狗", "猫", "汽车")
    texts = [f"一只{color}的{a}在{b}旁边" for color in "红蓝" for a in kinds for b in kinds]
    (folder / "captions.txt").write_text("\n".join(texts * 3))
    rows = [{"image": f"{i}.png", "caption": text} for i, text in enumerate(texts[:2])]
    (folder / "val.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for row in rows:
        Image.new("RGB", (32, 32)).save(folder / row["image"])
    settings = ["vocabulary.kind=subword", "vocabulary.size=40", "vocabulary.language=zh"]
    settings += [f"concepts.tagger={TAGGER}"]
    val = ["--val", folder, folder / "val.jsonl"]
    result = make(folder, out, *val, "--set", *settings)
    assert result.code == 0, result.output
    assert not (out / "corpus" / "vocabulary.txt").exists()
    vocabulary = load_vocabulary(out / "corpus" / "tokenizer.json")
    assert len(vocabulary) <= 40
    assert load_concepts(out / "corpus" / "concepts.safetensors").words == ["汽车", "狗", "猫"]
    longest = max(len(vocabulary.to_ids(text)) for text in texts)
    for name in CONFIGS:
        cfg = Config.fromfile(out / f"{name}.py")
        check_inputs(cfg, ("train", "val"))
        check_config(cfg, ("train", "val"))
        assert cfg.val_evaluator.language == "zh"
        if name != "config":
            assert cfg.model.vocabulary == f"{cfg.root}/corpus/tokenizer.json"
            assert cfg.model.decoding.max_len == longest + 1
    # The same folder is not continued with another vocabulary.
    result = make(folder, out, *val, "--set", settings[-1], "concepts.min_count=1")
    assert (result.code, "vocabulary.kind" in result.output) == (1, True), result.output
    captions = str(folder / "captions.txt")
    for wrong, message in (
        ({"vocabulary.size": 9}, "size must be left out for kind='word'"),
        ({"vocabulary.kind": "letters"}, "kind must be 'word' or 'subword'"),
        ({"vocabulary.kind": "subword", "vocabulary.unk": True}, "unk must be False"),
        ({"vocabulary.kind": "subword", "vocabulary.file": captions}, "must be a .json file"),
        ({"vocabulary.language": "chinese"}, "`language` must be a code"),
        ({"concepts.tagger": TAGGER, "concepts.phrases": True}, "phrases must be False with a"),
        ({"concepts.tagger": TAGGER, "concepts.words": captions}, "tagger has no effect"),
        ({"concepts.tagger": "tests.toy_languages:nothing"}, "has no function nothing"),
    ):
        with pytest.raises(UserError, match=message):
            load_recipe(str(folder / "text.yaml"), wrong)


def test_any_number_of_ranks_makes_the_same_folder(inputs, whole, tmp_path):
    result = make(inputs, tmp_path / "data", processes=2)
    assert result.code == 0, result.output
    assert contents(tmp_path / "data") == contents(whole)


def test_a_small_data_set_grows(inputs, whole, tmp_path):
    out = tmp_path / "data"
    assert make(inputs, out, "--limit", 1100).code == 0
    first = out / "train_store" / "shard-00000.safetensors"
    before = first.stat().st_mtime_ns
    # Until the features are those of the corpus, there is no config.
    assert make(inputs, out, "--stages", "corpus").code == 0
    assert not list(out.glob("*.py"))
    result = make(inputs, out)
    assert result.code == 0, result.output
    assert contents(out) == contents(whole)
    assert first.stat().st_mtime_ns == before
    (out / "train_store" / "shard-00001.jsonl").unlink()  # a lost file is made again
    assert make(inputs, out).code == 0
    assert contents(out) == contents(whole)


def test_configs_describe_the_folder(inputs, whole):
    cfgs = {name: Config.fromfile(whole / f"{name}.py") for name in CONFIGS}
    for cfg in cfgs.values():
        check_config(cfg, ["train"])
        check_inputs(cfg, ["train"])
        check_features(cfg, ["train"])
        assert cfg.train_dataloader.dataset.features == "text"
        assert cfg.model.neck.clip_dim == 8
        assert cfg.clip.model_name == load_recipe(str(inputs / "text.yaml")).extract.model
        assert cfg.val_dataloader is cfg.val_cfg is cfg.test_evaluator is None
        assert (cfg.param_scheduler.warmup, cfg.train_dataloader.drop_last) == (100, True)
        assert cfg.optim_wrapper.optimizer.lr == pytest.approx(0.1)
    small = cfgs["config"]
    assert small.model.type == "pcm_plugin.PrefixCaptioner"
    assert (small.model.mapper.embed_dims, small.param_scheduler.embed_dims) == (16, 16)
    assert not small.model.pretrained
    assert Path(cfgs["decap"].model.neck.text_memory).samefile(whole / "train_store")
    assert cfgs["capdec"].model.neck.get("text_memory") is None
    assert (cfgs["capdec"].model.neck.get("noise_var"), cfgs["decap"].model.neck.noise_var) == (
        None,
        0.0,
    )


def test_settings_of_each_captioner(inputs, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "data")
    settings = ["model.prefix.decoding.beam_size=2", "model.capdec.neck.noise_var=0.02"]
    settings += ["model.decap.neck.text_memory_temperature=0.05"]
    result = make(inputs, out, "--set", *settings)
    assert result.code == 0, result.output
    prefix, capdec, decap = (Config.fromfile(out / f"{name}.py").model for name in CONFIGS)
    assert (prefix.decoding.beam_size, prefix.decoding.max_len) == (2, 30)
    assert capdec.neck.noise_var == 0.02
    assert (decap.neck.text_memory_temperature, decap.neck.noise_var) == (0.05, 0.0)


def test_a_pretrained_language_model_has_the_settings_of_viecap(inputs, tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    gpt2 = tmp_path / "gpt2"
    build_gpt2(TEXTS, gpt2, layers=1, width=16, heads=2)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(gpt2)).save_pretrained(gpt2)
    recipe = yaml.safe_load((inputs / "text.yaml").read_text())
    del recipe["language_model"]
    sizes = {"embed_dims": 16}
    recipe["model"] = {
        "prefix": {
            "language_model": str(gpt2),
            "neck": sizes,
            "mapper": sizes | {"num_layers": 1, "num_heads": 2},
        }
    }
    (inputs / "pretrained.yaml").write_text(yaml.safe_dump(recipe))
    out = tmp_path / "data"
    result = make(inputs, out, recipe="pretrained.yaml")
    assert result.code == 0, result.output
    cfg = Config.fromfile(out / "config.py")
    assert cfg.model.full_sentences
    assert cfg.model.get("pretrained", True)
    assert Path(cfg.model.entity_prompt.caption_entities).samefile(
        out / "corpus/concepts.safetensors"
    )
    rise, fall = cfg.param_scheduler
    # A twentieth of 15 epochs of 15 batches is less than the shortest warm-up.
    assert (rise.end, rise.start_factor, fall.begin) == (100, 1 / 100, 100)
    assert cfg.optim_wrapper.optimizer.type == "AdamW"
    args = [out / "config.py", "--work-dir", tmp_path / "run", "--cfg-options"]
    args += ["train_cfg.max_epochs=8", "train_dataloader.num_workers=0"]
    result = run("train", *args, log=tmp_path / "log")
    assert result.code == 0, result.output
    assert (tmp_path / "run" / "epoch_8.pth").is_file()


def test_real_images_choose_checkpoints_without_patch_features(inputs, tmp_path):
    (tmp_path / "photos").mkdir()
    rows = ["caption,file_name"]
    for i, thing in enumerate(THINGS[:3]):
        Image.new("RGB", (16, 16), (80 * i, 0, 0)).save(tmp_path / "photos" / f"{i}.png")
        rows += [f"a {thing} on the house,{i}.png", f"the {thing},{i}.png"]
    (tmp_path / "val.csv").write_text("\n".join(rows))
    real = ["--val", tmp_path / "photos", tmp_path / "val.csv"]
    result = make(inputs, tmp_path / "data", *real, "--dry-run", log=tmp_path / "log")
    assert result.code == 0, result.output
    assert re.search("encode train +1,200 captions, 0 done;", result.output)
    assert re.search("extract val +3 images, 0 done; 96.0 B in all", result.output)
    result = make(inputs, tmp_path / "data", *real)
    assert result.code == 0, result.output
    store = FeatureStore(tmp_path / "data" / "val_store")
    assert (len(store), store.num_captions, store.num_patches) == (3, 6, 0)
    for name in CONFIGS:
        cfg = Config.fromfile(tmp_path / "data" / f"{name}.py")
        assert cfg.val_dataloader.dataset.features == "global"
        assert Path(cfg.val_dataloader.dataset.store).samefile(store.path)
        assert cfg.test_dataloader is None
    args = [tmp_path / "data" / "config.py", "--work-dir", tmp_path / "run"]
    args += ["--cfg-options", "train_cfg.max_epochs=1"]
    args += [f"{loop}_dataloader.num_workers=0" for loop in ("train", "val")]
    result = run("train", *args, log=tmp_path / "log")
    assert result.code == 0, result.output
    assert list((tmp_path / "run").glob("best_caption_CIDEr_epoch_1.pth"))


def test_a_dry_run_measures_and_writes_nothing(inputs, whole, tmp_path):
    result = make(inputs, tmp_path / "data", "--dry-run", log=tmp_path / "log")
    assert result.code == 0, result.output
    assert "1,200 captions" in result.output
    assert "generate" not in result.output
    # 8 float16 values, an offset of 8 bytes, and a line of text for each caption.
    lines = (whole / "train_store" / "shard-00000.jsonl").stat().st_size / SHARD_SIZE
    size = 1200 * (2 * 8 + 8 + lines) / 1000
    (shown,) = (row for row in result.output.splitlines() if row.startswith("encode train"))
    assert float(shown.split("; ")[1].split()[0]) == pytest.approx(size, rel=0.1)
    assert not (tmp_path / "data").exists()
    result = make(inputs, whole, "--dry-run", log=tmp_path / "log")
    assert re.search("encode train +1,200 captions, 1,200 done;", result.output)
    changed = ["--set", "extract.dtype=float32"]
    result = make(inputs, whole, "--dry-run", *changed, log=tmp_path / "log")
    assert "settings (dtype: 'float16' there, 'float32' now)" in result.output


def test_wrong_inputs_are_reported_before_work_starts(inputs, tmp_path):
    for args, message in (
        (["--set", "generate.steps=3"], "so generate.steps has no effect: leave out"),
        (["--set", "refine.method=sync"], "so refine.method has no effect"),
        (["--stages", "corpus", "generate"], "stages must be among corpus, extract for this reci"),
        (["--stages", "refine"], "alone, got refine: leave it out"),
        (["--stages", "extract"], "run the stage corpus too"),
        (["--set", "language_model.heads=3"], "width a multiple of heads"),
        (["--set", "concepts.max_nouns=2"], "set concepts.words to a list, or --set model.prefix."),
        (["--set", "extract.model=local-dir:/nowhere"], "/nowhere"),
    ):
        result = make(inputs, tmp_path / "data", *args, log=tmp_path / "log")
        assert result.code == 1
        assert message in result.output
        assert "Traceback" not in result.output
        assert not list(tmp_path.rglob("*.safetensors"))


def test_a_folder_of_the_other_kind_is_refused_before_work_starts(inputs, whole, tmp_path):
    recipe = yaml.safe_load((inputs / "text.yaml").read_text())
    pipeline = build_pipeline(tmp_path / "pipeline")
    recipe["generate"] = {"pipeline": str(pipeline), "steps": 1, "format": "png"}
    del recipe["language_model"]
    (inputs / "images.yaml").write_text(yaml.safe_dump(recipe))
    before = contents(whole)
    for more in ([], ["--dry-run"]):
        result = make(inputs, whole, *more, recipe="images.yaml", log=tmp_path / "log")
        assert result.code == 1
        assert f"{whole} was made by a recipe that encodes captions alone" in result.output
    assert contents(whole) == before
    images = tmp_path / "images"
    words = ["--set", f"concepts.words={inputs / 'words.txt'}", "vocabulary.min_count=1"]
    (inputs / "words.txt").write_text("\n".join(THINGS))
    result = make(inputs, images, "--limit", 8, *words, recipe="images.yaml")
    assert result.code == 0, result.output
    before = contents(images)
    for more in ([], ["--dry-run"]):
        result = make(inputs, images, "--limit", 8, *words, *more, log=tmp_path / "log")
        assert result.code == 1
        assert f"{images} was made by a recipe that generates images" in result.output
    assert contents(images) == before


def test_a_captioner_of_images_refuses_captions_alone(whole, tmp_path):
    settings = [f"train_dataloader.dataset.store={whole}/train_store"]
    for config, more, features in (
        ("pcm_custom", [], "patch"),
        ("prefix_coco", [], "global"),
        ("capdec_custom", ["train_dataloader.dataset.features=global"], "global"),
    ):
        args = [config, "--work-dir", tmp_path / "run", "--cfg-options", *settings, *more]
        result = run("train", *args, log=tmp_path / "log")
        assert result.code == 1
        assert f"train_dataloader.dataset with features='{features}' needs" in result.output
        assert "was made from captions alone: train CapDec, DeCap or a prefix" in result.output
    # Nor is it a validation set.
    settings.append(f"val_dataloader.dataset.store={whole}/train_store")
    args = ["capdec_custom", "--work-dir", tmp_path / "run", "--cfg-options", *settings]
    result = run("train", *args, log=tmp_path / "log")
    assert "val_dataloader.dataset with features='global' needs images" in result.output
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Return a folder with captions of the toy world, the data set of them and two images."""
    folder = tmp_path_factory.mktemp("toy")
    build_world(folder / "town", "town", {"train": 150, "val": 2, "test": 2}, 0, workers=1)
    for number, scene in enumerate(unseen_scenes(2, minimum=2)):
        (folder / "photos").mkdir(exist_ok=True)
        render(scene, 0).image.save(folder / "photos" / f"{number}.png")
    args = [folder / "town" / "captions_train.json", "--recipe", "text_toy", "--device", "cpu"]
    args += ["--out", folder / "data", "--set", "vocabulary.min_count=1"]
    result = run("make-dataset", *args, log=folder / "log")
    assert result.code == 0, result.output
    return folder


@pytest.mark.parametrize("name", CONFIGS)
def test_from_captions_to_captions_of_images(toy, tmp_path, name):
    """Train on captions alone, export, and caption images without the data set."""
    data = shutil.copytree(toy / "data", tmp_path / "data")
    config, work = data / f"{name}.py", tmp_path / "run"
    args = [config, "--work-dir", work, "--cfg-options", "train_cfg.max_epochs=6"]
    args += ["param_scheduler.warmup=20", "optim_wrapper.optimizer.lr=0.7"]
    args += ["train_dataloader.num_workers=0"]
    result = run("train", *args, log=tmp_path / "log")
    assert result.code == 0, result.output
    logs = [path.read_text() for path in work.glob("*/vis_data/scalars.json")]
    losses = [json.loads(line)["loss"] for log in logs for line in log.splitlines()]
    assert losses[-1] < losses[0]
    if name == "config":
        result = run("report", work, log=tmp_path / "log")
        assert result.code == 0, result.output
        page = (work / "report.html").read_text()
        assert "trained on captions alone, so no training pairs are shown" in page
        photos = ["--photos", toy / "photos", "--json", tmp_path / "report.json"]
        result = run("report", work, *photos, log=tmp_path / "log")
        assert result.code == 0, result.output
        figures = json.loads((tmp_path / "report.json").read_text())
        # Photos alone are measured: there are no synthetic images.
        assert figures["scores"].keys() == {"photos"}
        assert "gap" not in figures
        assert "CLIPScore points" in figures["assessment"]
    file = tmp_path / "captioner.safetensors"
    result = run("export", config, work / "epoch_6.pth", "--out", file, log=tmp_path / "log")
    assert result.code == 0, result.output
    expected = caption(toy, tmp_path, work / "epoch_6.pth", "--config", config)
    data.rename(tmp_path / "moved")
    found = caption(toy, tmp_path, file)
    assert found == expected
    assert len(found) == 2
    assert all(len(text.split()) > 1 for text in found)
    model = load_captioner(file)
    assert (len(model.neck.text_memory) == 150) == (name == "decap")
    if name == "config":
        concepts = load_concepts(tmp_path / "moved/corpus/concepts.safetensors")
        assert model.entity_prompt.concepts.words == concepts.words


def caption(toy, tmp_path, *model):
    """Return the captions of the two images."""
    args = [*model, toy / "photos", "--out", tmp_path / "captions.json", "--min-len", 2]
    result = run("caption", *args, "--device", "cpu", log=tmp_path / "log")
    assert result.code == 0, result.output
    return [row["caption"] for row in json.loads((tmp_path / "captions.json").read_text())]
