"""``pcm report --photos`` on a small run in the toy world."""

import json
import os
import shutil

import pytest
import torch
from mmengine.config import Config
from PIL import Image
from safetensors.torch import load_file

from pcm_plugin.commands.report import main
from pcm_plugin.engine.config_files import find_config
from pcm_plugin.evaluation.domain_gap import domain_gap
from pcm_plugin.formats.coco import write_coco_captions
from pcm_plugin.formats.concept_set import load_concepts, save_concepts
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.packaged_files import packaged_file
from pcm_plugin.registry import MODELS
from pcm_plugin.toyworld.world import build_world
from tests.builders import build_clip
from tests.test_tools.commands import run
from tests.toy_languages import CHINESE

CLIP = f"local-dir:{packaged_file('toyworld/assets/clip')}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with photos of the country, and a run on images of the town."""
    root = tmp_path_factory.mktemp("photo_report")
    log = root / "log.txt"
    build_world(root / "town", "town", {"train": 16, "val": 0, "test": 0}, workers=1)
    build_world(root / "country", "country", {"train": 12, "val": 0, "test": 0}, workers=1)
    shutil.copytree(root / "country/images", root / "photos")
    (root / "photos/broken.png").write_bytes(b"not an image")
    captions, concepts = root / "town/captions_train.json", root / "town/concepts.safetensors"
    for words in (
        ["extract", root / "town/images", "--captions", captions, "--out", root / "store"],
        ["build-concepts", root / "town/concepts.txt", "--out", concepts],
    ):
        done = run(*words, "--model", CLIP, log=log)
        assert done.code == 0, done.output
    words = ["build-vocabulary", captions, "--min-count", 1, "--out", root / "vocabulary.txt"]
    assert run(*words, log=log).code == 0
    cfg = Config.fromfile(find_config("pcm_toy"))
    cfg.clip.model_name = CLIP
    cfg.root = str(root / "town")
    cfg.model.vocabulary = str(root / "vocabulary.txt")
    cfg.model.neck.concepts = str(concepts)
    cfg.model.neck.clip_head = str(root / "store/clip_head.safetensors")
    cfg.train_dataloader.dataset.store = str(root / "store")
    for loop in ("val", "test"):
        for part in ("dataloader", "evaluator", "cfg"):
            cfg[f"{loop}_{part}"] = None
    work = root / "work"
    (work / "1/vis_data").mkdir(parents=True)
    (work / "1/vis_data/scalars.json").write_text('{"loss": 3.0, "step": 10}\n')
    cfg.dump(work / "pcm.py")
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    torch.save({"state_dict": model.state_dict(), "meta": {}}, work / "epoch_1.pth")
    return root


def report(folder, *words):
    paths = ["--train-images", folder / "town/images", "--device", "cpu", "--count", 2]
    return run("report", folder / "work", *paths, *words, log=folder / "log.txt")


@pytest.fixture(scope="module")
def made(folder):
    """Return the figures of the photos, and the page."""
    files = ["--json", folder / "r.json", "--statistics", folder / "s.safetensors"]
    done = report(folder, "--photos", folder / "photos", *files)
    assert done.code == 0, done.output
    figures = json.loads((folder / "r.json").read_text())
    assert figures["assessment"] in done.output
    return figures, (folder / "work/report.html").read_text()


def cached(folder):
    return sorted((folder / "work/photos").iterdir())


def test_the_page_shows_scores_gap_concepts_and_images(made):
    figures, page = made
    sentence = page.index('<p class="assessment">')
    assert sentence < page.index("<h2>Scores</h2>")
    assert figures["assessment"].split(";")[0] in page
    headings = [
        "Captions of photos without references",
        "Gap between synthetic images and photos",
        "Concepts in photos and not in synthetic images",
        "Concepts in photos and not in training captions",
        "Concepts that captions of photos leave out",
        "Photos most like the synthetic images",
        "Photos least like the synthetic images",
        "Synthetic images most like the photos",
        "Synthetic images least like the photos",
    ]
    places = [page.index(heading) for heading in headings]
    assert places == sorted(places)
    assert page.count("· similarity") == 8
    assert "1 photos could not be read" in page
    assert "There are only 12 photos" in page
    assert "The config has no CaptionMetric, so captions are tokenized as English" in page
    assert "gray squares" not in page


def test_the_figures_are_those_of_the_features(folder, made):
    figures, _ = made
    assert figures["photos"] == {"images": 12, "measured": 12, "skipped": 1}
    train, photos = FeatureStore(folder / "store"), FeatureStore(cached(folder)[0])
    # As many synthetic images as photos are compared.
    rows = [i for i in range(16) if train.record(i)["image_id"] in {
        image["image_id"] for image in figures["typical"]["synthetic images"]
    }]  # fmt: skip
    assert len(rows) == 12
    gap = domain_gap(
        train.read_rows("global_feats", rows), photos.read_rows("global_feats", range(12))
    )
    assert figures["gap"] == pytest.approx(gap.figures())
    best = int(gap.other_similarities.argmax())
    assert figures["typical"]["photos"][0]["image_id"] == photos.record(best)["image_id"]
    assert figures["scores"]["training captions"]["copied"] == 100
    margins = {name: scores["margin"] for name, scores in figures["scores"].items()}
    assert margins["training captions"] > 10
    assert abs(margins["photos"]) < 10  # the weights are random
    assert figures["measurements"]["margin"] == margins["photos"]


def test_the_statistics_are_those_of_all_features(folder, made):
    statistics = load_file(folder / "s.safetensors")
    train = FeatureStore(folder / "store")
    captions = train.read_rows("caption_feats", range(train.num_captions))
    torch.testing.assert_close(statistics["text_mean"], captions.mean(0))
    torch.testing.assert_close(statistics["text_std"], captions.std(0, correction=0))
    images = train.read_rows("global_feats", range(16))
    torch.testing.assert_close(statistics["synthetic_mean"], images.mean(0))
    photos = FeatureStore(cached(folder)[0]).read_rows("global_feats", range(12))
    torch.testing.assert_close(statistics["photo_std"], photos.std(0, correction=0))


def test_features_are_extracted_once_and_again_after_a_change(folder, made):
    before = cached(folder)
    manifest = before[0] / "manifest.json"
    time = manifest.stat().st_mtime_ns
    done = report(folder, "--photos", folder / "photos")
    assert done.code == 0, done.output
    assert cached(folder) == before
    assert manifest.stat().st_mtime_ns == time
    more = folder / "more"
    shutil.copytree(folder / "photos", more)
    Image.new("RGB", (64, 64), "red").save(more / "red.png")
    assert report(folder, "--photos", more).code == 0
    assert len(cached(folder)) == len(before) + 1


def test_a_store_of_photos_gives_the_same_figures(folder, made):
    store = folder / "photo_store"
    words = ["--captions", "none", "--model", CLIP, "--out", store]
    assert run("extract", folder / "country/images", *words, log=folder / "log.txt").code == 0
    words = ["--photo-images", folder / "country/images", "--json", folder / "store.json"]
    done = report(folder, "--photos", store, *words)
    assert done.code == 0, done.output
    figures = json.loads((folder / "store.json").read_text())
    assert figures["scores"] == made[0]["scores"]
    assert figures["gap"] == made[0]["gap"]


def test_photos_in_the_training_are_not_synthetic_images(folder, made):
    """A run on the pairs of `pcm refine --pool`, whose store holds photos too."""
    pool = folder / "pool"
    words = [folder / "store", "--pool", cached(folder)[0], "--pool-images", "photos"]
    done = run("refine", *words, "--out", pool, "--device", "cpu", log=folder / "log.txt")
    assert done.code == 0, done.output
    cfg = Config.fromfile(folder / "work/pcm.py")
    cfg.train_dataloader.dataset.store = str(pool / "store")
    cfg.train_dataloader.dataset.pairs = str(pool / "pairs.safetensors")
    cfg.dump(folder / "pool.py")
    words = ["--config", folder / "pool.py", "--json", folder / "pool.json"]
    done = report(folder, "--photos", folder / "photos", *words, "--out", folder / "pool.html")
    assert done.code == 0, done.output
    figures = json.loads((folder / "pool.json").read_text())
    assert figures["measurements"]["uses_photos"]
    assert not made[0]["measurements"]["uses_photos"]
    assert figures["gap"] == made[0]["gap"]


def test_without_photos_the_sentence_asks_for_them(folder):
    done = report(folder)
    assert done.code == 0, done.output
    assert "pass a folder of your photos with --photos" in done.output


def test_wrong_photos_are_reported(folder):
    (folder / "empty").mkdir(exist_ok=True)
    (folder / "broken").mkdir(exist_ok=True)
    (folder / "broken/a.png").write_bytes(b"nothing")
    other = build_clip(folder / "clip")
    words = ["--captions", "none", "--model", other, "--out", folder / "other_store"]
    assert run("extract", folder / "country/images", *words, log=folder / "log.txt").code == 0
    for photos, message in (
        ("none", "no folder of photos at"),
        ("empty", "must contain images, got a folder without any"),
        ("broken", "a.png"),
        ("other_store", "the photos must have the CLIP of"),
    ):
        done = report(folder, "--photos", folder / photos, "--out", folder / "never.html")
        assert done.code == 1, photos
        assert message in done.output
        assert "Traceback" not in done.output
    done = report(folder, "--statistics", folder / "x.safetensors")
    assert "--statistics has no effect without --photos" in done.output
    done = report(folder, "--photos", folder / "photos", "--language", "chinese")
    assert "`language` must be a code of ISO 639" in done.output
    assert not os.path.exists(folder / "never.html")


def test_photos_without_a_value_before_the_work_folder_is_explained(monkeypatch, capsys):
    for words, message in (
        (["--photos", "work_dirs/config"], "pass WORK_DIR first: pcm report work_dirs/config --ph"),
        (["--photos"], "WORK_DIR is missing\n"),
    ):
        monkeypatch.setattr("sys.argv", ["pcm report", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def chinese(folder):
    """Return the config of the run with Chinese captions and concepts, without evaluation."""
    images = json.loads((folder / "town/captions_train.json").read_text())
    names = {image["id"]: image["file_name"] for image in images["images"]}
    rows = {}
    for row in images["annotations"]:
        nouns = [CHINESE[kind][0] for kind in CHINESE if kind in row["caption"]]
        rows.setdefault(row["image_id"], []).append(f"图片里有{'和'.join(nouns)}")
    captions = folder / "chinese.json"
    write_coco_captions(captions, [(key, names[key], texts) for key, texts in rows.items()])
    words = [folder / "town/images", "--captions", captions, "--out", folder / "chinese_store"]
    done = run("extract", *words, "--model", CLIP, log=folder / "log.txt")
    assert done.code == 0, done.output
    english = load_concepts(folder / "town/concepts.safetensors")
    kept = [i for i, word in enumerate(english.words) if word in CHINESE]
    nouns = [CHINESE[english.words[i]][0] for i in kept]
    assert len(kept) > 10
    save_concepts(folder / "nouns.safetensors", nouns, english.embeddings[kept])
    cfg = Config.fromfile(folder / "work/pcm.py")
    cfg.train_dataloader.dataset.store = str(folder / "chinese_store")
    cfg.model.neck.concepts = str(folder / "nouns.safetensors")
    return cfg


def test_concepts_are_counted_in_the_language_of_the_captions(folder, chinese):
    chinese.dump(folder / "chinese.py")
    coverage, missing = {}, {}
    for language in ("zh", "en"):
        words = ["--config", folder / "chinese.py", "--json", folder / "zh.json"]
        words += ["--language", language, "--out", folder / "zh.html"]
        done = report(folder, "--photos", folder / "photos", *words)
        assert done.code == 0, done.output
        figures = json.loads((folder / "zh.json").read_text())
        coverage[language] = figures["scores"]["training captions"]["concept coverage"]
        missing[language] = figures["measurements"]["missing_concepts"]
        tables = figures["concepts"]
        assert figures["measurements"]["coverage"] == (0 if language == "zh" else None)
        assert figures["scores"]["training captions"]["copied"] == 100
    assert coverage["zh"] > 30
    # No Chinese concept is a word of English, so none can be found, and none is missing.
    assert coverage["en"] is None
    assert missing["en"] == []
    assert set(tables) == {
        "Concepts in photos and not in synthetic images",
        "Concepts in synthetic images and not in photos",
    }
    assert "so concepts are probably words of another language" in (folder / "zh.html").read_text()


def test_the_language_is_that_of_the_metric(folder, chinese):
    chinese.test_evaluator = {"type": "pcm_plugin.CaptionMetric", "language": "zh"}
    chinese.model.neck.concepts = str(folder / "town/concepts.safetensors")
    chinese.dump(folder / "metric.py")
    words = ["--config", folder / "metric.py", "--out", folder / "metric.html"]
    done = report(folder, "--photos", folder / "photos", *words)
    assert done.code == 0, done.output
    page = (folder / "metric.html").read_text()
    # The concepts are in English, as for a CLIP that knows no Chinese.
    assert "of the training captions (language zh) name a concept" in page
    assert "tokenized as English" not in page
