import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from PIL import Image

from pcm_plugin import cli
from pcm_plugin.datasets.synth_caption import SynthCaptionDataset
from pcm_plugin.errors import UserError
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.image_references import load_references
from pcm_plugin.formats.pair_selection import PairSelection
from pcm_plugin.synthesis.extract.store_images import load_images
from pcm_plugin.synthesis.pipeline.photo_pool import refine_with_pool
from pcm_plugin.synthesis.refine.settings import RefineSettings
from tests.builders import build_clip, build_pipeline, build_store
from tests.configs import TINY
from tests.test_docs.pages import ROOT
from tests.test_synthesis.test_refine_pairs import by_definition
from tests.test_tools.commands import run

CAPTIONS = [[f"caption {i} {j}" for j in range(1 + i % 2)] for i in range(7)]
SETTINGS = RefineSettings(num_images=4, num_captions=2, keep=1.0)


@pytest.fixture
def stores(tmp_path):
    """Return a training store of 7 images and a store of 5 photos, of one CLIP."""
    build_store(tmp_path / "train", CAPTIONS, clip_dim=8, dtype=torch.float32)
    # The same seed is part of the settings; other features come from `feats`.
    generator = torch.Generator().manual_seed(9)
    feats = {
        "patch_feats": torch.randn(5, 4, 6, generator=generator),
        "global_feats": torch.nn.functional.normalize(torch.randn(5, 8, generator=generator)),
    }
    build_store(tmp_path / "photos", [[]] * 5, clip_dim=8, dtype=torch.float32, feats=feats)
    head = "clip_head.safetensors"
    (tmp_path / "photos" / head).write_bytes((tmp_path / "train" / head).read_bytes())
    return tmp_path / "train", tmp_path / "photos"


@pytest.mark.parametrize("chunk", [2, 100])
def test_photos_and_generated_images_are_one_pool(tmp_path, stores, chunk):
    """SynC written out on the merged store gives the same pairs."""
    pairs = refine_with_pool(*stores, SETTINGS, tmp_path / "out", "all", chunk=chunk, device="cpu")
    expected = by_definition(tmp_path / "out/store", 4, 2)
    assert pairs.image.tolist() == [image for image, _ in expected]
    np.testing.assert_allclose(pairs.score, [score for _, score in expected], atol=1e-5)
    assert any(image >= 7 for image in pairs.image)
    assert any(image < 7 for image in pairs.image)


@pytest.mark.parametrize("chunk", [2, 100])
def test_photos_alone_as_the_pool(tmp_path, stores, chunk):
    """SynC on a store in which only photos are images: other images do not exist for it."""
    out = tmp_path / "out"
    pairs = refine_with_pool(*stores, SETTINGS, out, "photos", chunk=chunk, device="cpu")
    store, photos = FeatureStore(out / "store"), FeatureStore(stores[1])
    images = photos.read_rows("global_feats", range(5))
    captions = store.read_rows("caption_feats", range(store.num_captions))
    for j, caption in enumerate(captions):
        scores = {}
        for i in (images @ caption).topk(4).indices.tolist():
            retrieved = (captions @ images[i]).topk(2).indices
            scores[i] = max(round(float(captions[k] @ caption), 5) for k in retrieved)
        image, score = max(scores.items(), key=lambda item: item[1])
        assert pairs.image[j] == 7 + image
        assert pairs.score[j] == pytest.approx(score, abs=1e-5)
        cosine = float(images[image] @ caption)
        assert pairs.clip_score[j] == pytest.approx(2.5 * cosine, abs=1e-5)


def test_the_pairs_train_on_features_of_photos(tmp_path, stores):
    out = tmp_path / "out"
    refine_with_pool(*stores, SETTINGS, out, "photos", device="cpu")
    dataset = SynthCaptionDataset(out / "store", pairs=out / "pairs.safetensors")
    photos, texts = FeatureStore(stores[1]), [text for image in CAPTIONS for text in image]
    assert len(dataset) == len(texts)
    pairs = PairSelection.from_file(out / "pairs.safetensors", dataset.store.identity)
    for index, item in enumerate(dataset):
        photo = int(pairs.image[index]) - 7
        assert item["data_samples"].gt_caption == texts[index]
        assert torch.equal(item["patch_feats"], photos.patch_feats(photo))
        assert item["data_samples"].image_id == f"1-image{photo}"


def test_different_ids_stay_as_they_are(tmp_path, stores):
    build_store(tmp_path / "more", [[]] * 2, clip_dim=8, dtype=torch.float32, ids=["a", "b"])
    head = "clip_head.safetensors"
    (tmp_path / "more" / head).write_bytes((stores[0] / head).read_bytes())
    refine_with_pool(stores[0], tmp_path / "more", SETTINGS, tmp_path / "out", device="cpu")
    ids = FeatureStore(tmp_path / "out/store").image_ids
    assert ids == [*(f"image{i}" for i in range(7)), "a", "b"]


def test_wrong_pools_are_refused_before_any_file_is_written(tmp_path, stores):
    train, photos = stores
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"must hold images without captions, got 10 captions"):
        refine_with_pool(train, train, SETTINGS, out)
    with pytest.raises(UserError, match="have no captions"):
        refine_with_pool(photos, photos, SETTINGS, out)
    with pytest.raises(UserError, match="method must be 'sync' with a pool"):
        refine_with_pool(train, photos, RefineSettings("filter"), out)
    with pytest.raises(UserError, match="pool_images must be one of all, photos, got 'some'"):
        refine_with_pool(train, photos, SETTINGS, out, "some")
    build_store(tmp_path / "other", [[]] * 3, clip_dim=8, dtype=torch.float32, seed=3)
    assert not out.exists()
    with pytest.raises(UserError, match=r"different settings \(seed: 0 and 3\)"):
        refine_with_pool(train, tmp_path / "other", SETTINGS, out)


def test_command(tmp_path, stores):
    log = tmp_path / "log.txt"
    words = [stores[0], "--pool", stores[1], "--out", tmp_path / "out", "--device", "cpu"]
    done = run("refine", *words, "--pool-images", "photos", log=log)
    assert done.code == 0, done.output
    assert "have a photo (" in done.output
    assert f"train_dataloader.dataset.store={tmp_path / 'out/store'}" in done.output
    changed = run("refine", *words, log=log)
    assert changed.code == 1
    assert re.search(r"among: .5 images, .* there, .12 images, .* now", changed.output)
    unused = run("refine", stores[0], "--pool-images", "photos", "--out", "two", log=log)
    assert "--pool-images has no effect without --pool" in unused.output
    other = run("refine", *words, "--method", "filter", log=log)
    assert "--method filter has no --pool" in other.output


THINGS = ["dog", "cat", "car", "tree", "house"]
TEXTS = [
    f"{start} {color} {thing} {verb} next to the {other}"
    for start, color, thing, verb, other in itertools.product(
        ("the", "a"), ("red", "green"), THINGS, ("runs", "stands"), THINGS
    )
]  # 200


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a folder with captions, 12 photos and a recipe with tiny models."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "captions.txt").write_text("\n".join(TEXTS))
    (folder / "photos/more").mkdir(parents=True)
    for n in range(12):
        # The ids of photos are also those of captions.
        name = f"more/{n}.png" if n > 9 else f"{n}.png"
        Image.new("RGB", (20, 20), (20 * n, 0, 0)).save(folder / "photos" / name)
    (folder / "photos/broken.png").write_bytes(b"not an image")
    recipe = {
        "generate": {
            "pipeline": str(build_pipeline(folder / "pipeline")),
            "steps": 1,
            "format": "png",
            "shard_size": 70,
            "batch_size": 50,
        },
        "extract": {"model": build_clip(folder / "clip"), "batch_size": 50},
        "validation": {"captions": 15, "max_share": 0.3, "similarity": 1.0},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def pcm(*words):
    """Run a command in this process, and return the message with which it ended, or None."""
    try:
        cli.main([str(word) for word in words])
    except SystemExit as ended:
        return ended.code


def make(data, out, *settings, photos="photos", options=()):
    words = [data / "captions.txt", "--recipe", data / "tiny.yaml", "--out", out, "--device", "cpu"]
    words += [] if photos is None else ["--photos", data / photos]
    return pcm("make-dataset", *words, *options, *(["--set", *settings] if settings else []))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """Return a data set in which captions are assigned to photos and generated images."""
    out = tmp_path_factory.mktemp("whole") / "data"
    assert make(data, out) is None
    return out


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assigned(out):
    """Return store, pairs and held-out texts of a data set, whose config names both files."""
    dataset = Config.fromfile(out / "config.py").train_dataloader.dataset
    store = FeatureStore(dataset.store)
    held_out = load_references(out / "validation/references.jsonl")
    return store, PairSelection.from_file(dataset.pairs, store.identity), held_out


def test_one_command_assigns_captions_to_photos(whole):
    store, pairs, held_out = assigned(whole)
    assert len(store) == 200 + 12
    is_photo = pairs.image >= 200
    assert is_photo.any()
    assert not is_photo.all()
    assert len(held_out) == 15
    texts = {store.caption(j) for j in pairs.caption.tolist()}
    assert not texts & {text for own in held_out.values() for text in own}
    shown = {store.record(i)["image_id"] for i in pairs.image.tolist()}
    assert not shown & {f"0-{image_id}" for image_id in held_out}
    # As the commands of the stages do.
    out = whole.parent / "by_hand"
    among = ["--among", whole / "validation/train_pairs.safetensors", "--device", "cpu"]
    stores = [whole / "train_store", "--pool", whole / "photo_store"]
    assert pcm("refine", *stores, *among, "--out", out) is None
    one, other = (folder / "pairs.safetensors" for folder in (out, whole / "pairs"))
    assert one.read_bytes() == other.read_bytes()


def test_the_images_of_pairs_come_from_both_folders(data, whole):
    store, pairs, _ = assigned(whole)
    photo = int(pairs.image.max())
    (picture,) = load_images(store, [photo], data / "photos", part=1)
    red = int(Path(store.record(photo)["file_name"]).stem) * 20
    assert picture.getpixel((0, 0)) == (red, 0, 0)
    (drawn,) = load_images(store, [5], whole / "synthetic")
    (same,) = load_images(FeatureStore(whole / "train_store"), [5], whole / "synthetic")
    assert drawn.tobytes() == same.tobytes()


def test_corrections_are_merged_with_the_pool(data, whole, tmp_path):
    """The documented command keeps the pairs, and the images of the pool are still found."""
    clip = yaml.safe_load((data / "tiny.yaml").read_text())["extract"]["model"]
    (tmp_path / "corrections").mkdir()
    Image.new("RGB", (20, 20), "lime").save(tmp_path / "corrections/new.png")
    (tmp_path / "new.jsonl").write_text('{"image": "new.png", "caption": "a green wall"}\n')
    words = ["--captions", tmp_path / "new.jsonl", "--model", clip, "--device", "cpu"]
    new = tmp_path / "corrections_store"
    assert pcm("extract", tmp_path / "corrections", *words, "--out", new) is None
    page = (ROOT / "docs/your_own_captions.md").read_text()
    (line,) = re.findall(r"pcm (store merge \$D/pairs/store .*)", page)
    line = line.replace("$D/corrections_store", str(new)).replace("$D/corrected", f"{tmp_path}/c")
    assert pcm(*line.replace("$D", str(whole)).split()) is None
    merged = FeatureStore(tmp_path / "c_store")
    pairs = PairSelection.from_file(tmp_path / "c_store/pairs.safetensors", merged.identity)
    store, before, _ = assigned(whole)
    assert len(pairs.caption) == len(before.caption) + 1
    photo = int(before.image.max())
    for i, folder, part in ((photo, data / "photos", 1), (5, whole / "synthetic", 0)):
        (one,), (other,) = (load_images(s, [i], folder, part) for s in (store, merged))
        assert one.tobytes() == other.tobytes()


@pytest.fixture(scope="module")
def run_dir(whole):
    """Return the work folder of a training with the command that trains without photos too."""
    work_dir = whole.parent / "run"
    words = [whole / "config.py", "--work-dir", work_dir, "--cfg-options", *TINY]
    result = run("train", *words, log=whole.parent / "log")
    assert result.code == 0, result.output
    return work_dir


def report(run_dir, *words):
    file = run_dir / "report.json"
    error = pcm("report", run_dir, "--count", 30, "--device", "cpu", "--json", file, *words)
    assert error is None
    return json.loads(file.read_text()), (run_dir / "report.html").read_text(encoding="utf-8")


def test_the_report_finds_photos_and_training_images(data, run_dir):
    figures, page = report(run_dir, "--photos")
    assert figures["photos"] == {"images": 12, "measured": 12, "skipped": 1}
    assert figures["measurements"]["uses_photos"]
    assert "Validation is on generated images of held-out captions." in page
    assert "gray squares" not in page
    moved = shutil.move(data / "photos", data / "moved")
    try:
        _, page = report(run_dir)
        assert "Photos among the training images are replaced by gray squares: no folder of" in page
        assert "Pass their folder with --photo-images." in page
        _, page = report(run_dir, "--photo-images", moved)
        assert "gray squares" not in page
    finally:
        shutil.move(moved, data / "photos")


def test_finished_work_is_kept(data, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "data")
    before = contents(out)
    assert make(data, out) is None
    assert contents(out) == before
    shutil.rmtree(out / "pairs")
    (out / "photo_store/shard-00000.jsonl").unlink()
    assert make(data, out) is None
    assert contents(out) == before


def test_changed_photos_and_settings_are_refused(data, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "data")
    before = contents(out)
    pairs = out / "pairs"
    assert make(data, out, photos=None) == (
        f"{pairs} was made with photos: pass --photos, or remove {pairs}"
    )
    for options in ((), ("--dry-run",)):
        Image.new("RGB", (20, 20)).save(data / "photos/new.png")
        message = make(data, out, options=options)
        (data / "photos/new.png").unlink()
        assert message == (
            f"{out / 'photo_store'} was made from other photos than those in --photos: pass the "
            f"same photos, or remove {out / 'photo_store'} and {pairs}"
        )
    assert contents(out) == before
    shutil.rmtree(pairs)
    assert make(data, out, photos=None) is None
    assert not pairs.exists()
    assert make(data, out, "refine.method=sync", photos=None) is None
    assert make(data, out) == f"{pairs} was made without photos: remove {pairs}, or omit --photos"


def test_wrong_photos_are_reported_before_work_starts(data, tmp_path):
    (data / "empty").mkdir(exist_ok=True)
    (data / "unreadable").mkdir(exist_ok=True)
    (data / "unreadable/1.png").write_bytes(b"not an image")
    for settings, photos, message in (
        ((), "none", "no folder of photos at .*none"),
        ((), "empty", "empty"),
        ((), "unreadable", "none of the first 1 photos in .*unreadable can be read .*--photos"),
        (("photos.images=some",), "photos", "images must be one of all, photos, got 'some'"),
        (("photos.images=photos",), None, "pass it with --photos FOLDER"),
        (("refine.method=filter",), "photos", r"refine\.method must be 'sync' with photos"),
        (("generate=None",), "photos", r"photos\.folder.* no effect"),
    ):
        for options in ((), ("--dry-run",)):
            found = make(data, tmp_path / "out", *settings, photos=photos, options=options)
            assert re.search(message, found), found
    found = make(data, tmp_path / "out", photos=None, options=("--stages", "photos"))
    assert "which has no photos, got photos" in found
    assert not (tmp_path / "out").exists()


def test_the_dry_run_counts_photos(data, whole, tmp_path, capsys):
    assert make(data, tmp_path / "out", options=["--dry-run"]) is None
    lines = capsys.readouterr().out
    assert re.search(r"extract photos +13 images, 0 done", lines), lines
    assert re.search(r"refine +\d+ rows, 0 done", lines), lines
    assert make(data, whole, options=["--dry-run"]) is None
    lines = capsys.readouterr().out
    assert re.search(r"extract photos +13 images, 13 done", lines), lines
    total, done = re.search(r"refine +(\d+) rows, (\d+) done", lines).groups()
    assert int(total) - int(done) == 1, "the photo that cannot be read"


def test_another_model_assigns_captions_to_photos(data, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "data")
    shutil.rmtree(out / "pairs")
    assert make(data, out, f"assign.model={build_clip(tmp_path / 'assigning', seed=1)}") is None
    store, pairs, _ = assigned(out)
    assert FeatureStore(out / "pairs/assign_store").image_ids == store.image_ids
    assert (pairs.image >= 200).any()
    before = PairSelection.from_file(whole / "pairs/pairs.safetensors", store.identity)
    assert before.image.tolist() != pairs.image.tolist()


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """Return a data set in which captions are assigned to photos alone."""
    out = tmp_path_factory.mktemp("alone") / "data"
    assert make(data, out, "photos.images=photos") is None
    return out


def test_with_photos_alone_only_held_out_images_are_generated(data, alone, whole):
    store, pairs, held_out = assigned(alone)
    assert not (alone / "synthetic").exists()
    assert not (alone / "syntic.py").exists()
    drawn = FeatureStore(alone / "validation/store")
    assert sorted(drawn.image_ids) == sorted(held_out)
    assert len(drawn) == 15
    texts = {store.caption(j) for j in pairs.caption.tolist()}
    assert not texts & {text for own in held_out.values() for text in own}
    assert (pairs.image >= 200).all()
    # As if images of all captions were generated.
    assert held_out == load_references(whole / "validation/references.jsonl")
    out = alone.parent / "by_hand"
    among = ["--among", whole / "validation/train_pairs.safetensors", "--device", "cpu"]
    stores = [whole / "train_store", "--pool", whole / "photo_store", "--pool-images", "photos"]
    assert pcm("refine", *stores, *among, "--out", out) is None
    reader = FeatureStore(out / "store")
    expected = PairSelection.from_file(out / "pairs.safetensors", reader.identity)
    for one, other in zip(pairs, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    for i in (0, len(pairs.image) - 1):
        assert store.caption(int(pairs.caption[i])) == reader.caption(int(expected.caption[i]))
        one, other = (s.patch_feats(int(pairs.image[i])) for s in (store, reader))
        assert torch.equal(one, other)


def test_captions_alone_have_no_features_of_images(alone, capsys):
    store, _, _ = assigned(alone)
    assert store.is_image.tolist() == [False] * 200 + [True] * 12
    assert np.isnan(store.clip_scores).all()
    for rows in ([0], [205, 0]):
        with pytest.raises(UserError, match="has captions without images, so no global_feats"):
            store.read_rows("global_feats", rows)
    assert store.read_rows("global_feats", []).shape == (0, store.clip_dim)
    with pytest.raises(UserError, match="has captions without images: set `pairs`"):
        SynthCaptionDataset(store.path)
    assert pcm("store", "info", store.path) is None
    assert ": 12 images, 200 captions, " in capsys.readouterr().out


def test_photos_alone_are_trained_on_and_reported(alone):
    work_dir = alone.parent / "run"
    words = [alone / "config.py", "--work-dir", work_dir, "--cfg-options", *TINY]
    result = run("train", *words, log=alone.parent / "log")
    assert result.code == 0, result.output
    figures, page = report(work_dir, "--photos")
    assert figures["measurements"]["uses_photos"]
    assert "gap" not in figures
    assert "Captions are assigned to photos alone, so there are no synthetic training" in page
    assert "gray squares" not in page


def test_finished_work_of_photos_alone_is_kept(data, alone, tmp_path):
    out = shutil.copytree(alone, tmp_path / "data")
    before = contents(out)
    for lost in ("", "pairs", "validation", "photo_store/shard-00000.jsonl"):
        if lost.endswith("jsonl"):
            (out / lost).unlink()
        elif lost:
            shutil.rmtree(out / lost)
        assert make(data, out, "photos.images=photos") is None
        assert contents(out) == before, lost


def test_changed_settings_of_photos_alone_are_refused(data, alone, whole, tmp_path):
    out = shutil.copytree(alone, tmp_path / "data")
    made = [out / name for name in ("train_store", "validation", "pairs")]
    assert make(data, out) == (
        f"{out} was made with photos.images=photos, without images of its captions: pass --photos "
        "and --set photos.images=photos, or another --out, or remove "
        f"{' and '.join(map(str, made))}"
    )
    assert "has generated images of all captions" in make(data, whole, "photos.images=photos")
    more = tmp_path / "more"
    more.mkdir()
    for name in ("photos", "tiny.yaml"):
        (more / name).symlink_to(data / name)
    # Some of them are held out in place of others.
    extra = [f"some day {text}" for text in TEXTS]
    (more / "captions.txt").write_text("\n".join([*TEXTS, *extra]))
    found = make(data, out, "photos.images=photos", "validation.captions=16")
    assert "validation was made with other settings (captions: 15 there, 16 now)" in found
    found = make(more, out, "photos.images=photos")
    assert f"remove {out / 'validation'} and {out / 'pairs'}" in found, found
    shutil.rmtree(out / "validation")
    shutil.rmtree(out / "pairs")
    assert make(more, out, "photos.images=photos") is None
    assert len(FeatureStore(out / "pairs/store")) == 400 + 12


def test_the_dry_run_of_photos_alone(data, alone, tmp_path, capsys):
    for out, done in ((tmp_path / "new", 0), (alone, None)):
        assert make(data, out, "photos.images=photos", options=["--dry-run"]) is None
        lines = capsys.readouterr().out
        for name, total, unit in (
            ("generate val", 15, "images"),
            ("encode train", 200, "captions"),
            ("extract val", 15, "images"),
            ("extract photos", 13, "images"),
        ):
            left = total if done is None else done
            assert re.search(rf"{name} +{total} {unit}, {left} done", lines), lines
        assert "200 captions; images are generated for validation alone" in lines
        assert "generate  " not in lines
    assert not (tmp_path / "new").exists()
    off = ["photos.images=photos", "validation=None"]
    assert make(data, tmp_path / "new", *off, options=["--dry-run"]) is None
    lines = capsys.readouterr().out
    assert "200 captions; no images are generated" in lines
    assert "generate val" not in lines


def test_photos_alone_without_validation_need_no_diffusion_model(data, tmp_path):
    settings = ["photos.images=photos", "validation=None", "generate.pipeline=nowhere"]
    clip = f"assign.model={build_clip(tmp_path / 'assigning', seed=1)}"
    assert make(data, tmp_path / "data", *settings, clip) is None
    dataset = Config.fromfile(tmp_path / "data/config.py").train_dataloader.dataset
    assert len(SynthCaptionDataset(dataset.store, pairs=dataset.pairs)) == 180  # keep=0.9


@pytest.mark.parametrize("images", ["all", "photos"])
def test_several_processes_make_the_same_folder(data, whole, alone, tmp_path, images):
    out = tmp_path / "data"
    words = [data / "captions.txt", "--recipe", data / "tiny.yaml", "--photos", data / "photos"]
    words += ["--out", out, "--device", "cpu", "--set", f"photos.images={images}"]
    result = run("make-dataset", *words, log=tmp_path / "log", processes=2, launcher=False)
    assert result.code == 0, result.output
    expected = contents(whole if images == "all" else alone)
    found = contents(out)
    assert {k: v for k, v in found.items() if k.name[0] != "."} == {
        k: v for k, v in expected.items() if k.name[0] != "."
    }
