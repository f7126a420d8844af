"""Captioners of the toy world in Chinese and Turkish, from captions and images to scores."""

import json
import shutil
from itertools import islice

import pytest

from pcm_plugin.formats.coco import write_coco_captions
from pcm_plugin.formats.word_list import read_word_list
from pcm_plugin.packaged_files import packaged_file
from pcm_plugin.toyworld.render import render
from pcm_plugin.toyworld.scene import DOMAINS, scenes
from tests.test_tools.commands import run
from tests.toy_languages import CHINESE, TURKISH, chinese, turkish

SIZES = {"train": (600, 2), "test": (60, 3)}
LANGUAGES = {"zh": chinese, "tr": turkish}
TAGGERS = {"zh": "find_chinese_nouns", "tr": "find_turkish_nouns"}
CLIP = f"local-dir:{packaged_file('toyworld/assets/clip')}"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Return a folder with images, and with captions in both languages."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "images").mkdir()
    for split, (count, captions) in SIZES.items():
        drawn = list(islice(scenes(DOMAINS["town"], split, count, 0), count))
        names = [f"{split}{i}.png" for i in range(count)]
        for i, (scene, name) in enumerate(zip(drawn, names, strict=True)):
            render(scene, f"{split}/{i}").image.save(folder / "images" / name)
        for language, annotate in LANGUAGES.items():
            texts = [[annotate(s, i) for i in range(captions)] for s in drawn]
            rows = [(n, n, t) for n, t in zip(names, texts, strict=True)]
            write_coco_captions(folder / f"{language}_{split}.json", rows)
    return folder


def step(folder, name, *args):
    result = run(name, *args, log=folder / f"{name}.log", launcher=False, timeout=300)
    assert result.code == 0, result.output
    return result.output


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_captioner_is_trained_in_a_language(world, tmp_path, language):
    captions = {split: world / f"{language}_{split}.json" for split in SIZES}
    for split, file in captions.items():
        options = ["--captions", file, "--model", CLIP, "--no-patches", "--device", "cpu"]
        step(tmp_path, "extract", world / "images", *options, "--out", tmp_path / split)
    vocabulary, words = tmp_path / "tokenizer.json", tmp_path / "words.txt"
    options = ["--kind", "subword", "--size", 300, "--min-count", 2, "--out", vocabulary]
    output = step(tmp_path, "build-vocabulary", captions["train"], *options)
    max_len = int(output.split("model.decoding.max_len=")[1].split()[0])
    tagger = ["--tagger", f"tests.toy_languages:{TAGGERS[language]}", "--out-words", words]
    step(tmp_path, "build-concepts", "--captions", captions["train"], *tagger)
    nouns = [n for n, _ in CHINESE.values()] if language == "zh" else TURKISH.values()
    assert set(read_word_list(words)) <= {*nouns}
    assert len(read_word_list(words)) > 20

    settings = {
        "model.vocabulary": vocabulary,
        "model.decoding.max_len": max_len,
        "model.neck.noise_var": 0.0,
        **{f"model.{part}.num_layers": 1 for part in ("encoder", "decoder")},
        "train_dataloader.dataset.store": tmp_path / "train",
        "train_dataloader.dataset.features": "global",
        "train_cfg.max_epochs": 12,
        "train_cfg.val_interval": 100,
        "param_scheduler.warmup": 100,
        **{f"{loop}_dataloader.dataset.store": tmp_path / "test" for loop in ("val", "test")},
        **{f"{loop}_dataloader.dataset.data_prefix": None for loop in ("val", "test")},
        **{f"{loop}_evaluator.language": language for loop in ("val", "test")},
    }
    options = ["--cfg-options", *(f"{key}={value}" for key, value in settings.items())]
    work = tmp_path / "work"
    step(tmp_path, "train", "capdec_toy", "--work-dir", work, *options)
    weights = tmp_path / "captioner.safetensors"
    [checkpoint] = work.glob("epoch_12.pth")
    step(tmp_path, "export", work / "capdec_toy.py", checkpoint, "--out", weights)

    photos, results = tmp_path / "photos", tmp_path / "captions.json"
    photos.mkdir()
    for file in (world / "images").glob("test*.png"):
        shutil.copy(file, photos)
    step(tmp_path, "caption", weights, photos, "--out", results, "--device", "cpu")
    known = {piece for text in texts_of(captions["train"]) for piece in text}
    generated = texts_of(results)
    assert len(generated) == SIZES["test"][0]
    assert all(set(text) <= known for text in generated)
    if language == "tr":
        assert all(text.endswith(" var.") for text in generated)
        assert any("ğin " in text or "nın " in text for text in generated)
    else:
        assert not any(" " in text for text in generated)

    def score(file):
        out = tmp_path / "scores.json"
        output = step(
            tmp_path, "score", file, captions["test"], "--language", language, "--out", out
        )
        scores = json.loads(out.read_text())
        tokens = {"zh": "zh, characters", "tr": "tr, words"}[language]
        assert scores["tokens"] == tokens
        assert f"tokens: {tokens}" in output
        return scores["CIDEr"]

    # Each image gets the caption of the next one.
    rows = json.loads(results.read_text())
    texts = [row["caption"] for row in rows]
    moved = [{**row, "caption": t} for row, t in zip(rows, [*texts[1:], texts[0]], strict=True)]
    (tmp_path / "moved.json").write_text(json.dumps(moved))
    assert score(results) > score(tmp_path / "moved.json") + 15

    word = "狗" if language == "zh" else "köpek"
    results.unlink()
    options = ["--out", results, "--include", word, "--device", "cpu"]
    step(tmp_path, "caption", weights, photos, *options)
    assert all(word in text for text in texts_of(results))


def texts_of(path):
    """Return the captions of a results file or of COCO captions JSON."""
    content = json.loads(path.read_text())
    return [
        row["caption"] for row in (content if isinstance(content, list) else content["annotations"])
    ]
