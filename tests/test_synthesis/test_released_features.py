import pickle
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pcm_plugin.datasets.synth_caption import SynthCaptionDataset
from pcm_plugin.formats.clip_head import CLIP_HEAD
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.released_annotations import ReleasedPair, read_released_annotations
from pcm_plugin.formats.vocabulary import Vocabulary
from pcm_plugin.models.backbones.open_clip_backbone import OpenCLIPBackbone
from tests.builders import build_clip
from tests.test_tools.commands import run

VOCABULARY = Vocabulary(["a", "dog", "cat", "runs"])
PLACES = ("npz", "images", "pairs", "vocabulary")
WORDS = ["--vocabulary", "vocabulary.txt"]
FEATURES = ["npz", "pairs.pkl", *WORDS]
IMAGES = ["images", "--captions", "pairs.pkl"]
CAPTIONS = ["a dog runs", "a cat", "a dog", "cat runs", "a cat runs"]


def entry(i, caption, dtype=np.int32):
    tokens, targets = (ids.numpy() for ids in VOCABULARY.encode(caption))
    return {
        "image_id": f"{100 + i}" if i % 2 else 100 + i,
        "split_id": i % 2,
        "tokens_ids": tokens[None].astype(dtype),
        "target_ids": targets[None].astype(dtype),
        "clipscore": np.float32(0.5 + 0.1 * i),
    }


ENTRIES = [entry(i, caption) for i, caption in enumerate(CAPTIONS)]


class Harmful:
    def __reduce__(self):
        return (open, ("executed", "w"))


@pytest.fixture
def released(tmp_path):
    """Features, images and annotations in the released format; returns the CLIP of the features."""
    clip = build_clip(tmp_path / "clip")
    generator = torch.Generator().manual_seed(0)
    for i in range(len(CAPTIONS)):
        for folder in (f"npz/img_sp{i % 2}", f"images/{i % 2}"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            tmp_path / f"npz/img_sp{i % 2}" / f"{100 + i}.npz",
            features=torch.randn(16, 16, generator=generator).numpy(),
            g_feature=torch.randn(1, 8, generator=generator).numpy(),
        )
        Image.new("RGB", (16, 16), (40 * i, 0, 0)).save(
            tmp_path / "images" / str(i % 2) / f"{100 + i}.jpg"
        )
    VOCABULARY.to_file(tmp_path / "vocabulary.txt")
    (tmp_path / "pairs.pkl").write_bytes(pickle.dumps(ENTRIES))
    return clip


def read(content, protocol=4):
    with open("pairs.pkl", "wb") as file:
        pickle.dump(content, file, protocol)
    return read_released_annotations("pairs.pkl", VOCABULARY)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64])
def test_annotations_are_read(tmp_path, monkeypatch, protocol, dtype):
    monkeypatch.chdir(tmp_path)
    pairs = read([entry(i, caption, dtype) for i, caption in enumerate(CAPTIONS)], protocol)
    assert [pair.captions for pair in pairs] == [[caption] for caption in CAPTIONS]
    assert [pair.image_id for pair in pairs] == ["100", "101", "102", "103", "104"]
    assert [pair.split_id for pair in pairs] == ["0", "1", "0", "1", "0"]
    assert pairs[2].clip_scores == [pytest.approx(0.7)]
    several = {**ENTRIES[0], "target_ids": np.concatenate([e["target_ids"] for e in ENTRIES[:2]])}
    expected = ReleasedPair("100", "0", ["a dog runs", "a cat"], [0.5, 0.5], "100")
    assert read([{**several, "clipscore": 0.5}]) == [expected]
    bare = {key: several[key] for key in ("image_id", "target_ids")}
    assert read([bare]) == [ReleasedPair("100", None, ["a dog runs", "a cat"], None, "100")]


def test_equal_image_ids_in_several_parts(released, tmp_path):
    """Entries of one image are merged; ids that occur in two parts are prefixed with the part."""
    texts = [(100, 0, "a dog runs"), (101, 1, "a cat"), (100, 1, "a dog"), (100, 0, "cat runs")]
    entries = []
    for n, (image_id, part, caption) in enumerate(texts):
        changed = {"image_id": image_id, "split_id": part, "clipscore": np.float32(0.1 * n)}
        entries.append(entry(0, caption) | changed)
    (tmp_path / "pairs.pkl").write_bytes(pickle.dumps(entries))
    other = tmp_path / "npz/img_sp1/100.npz"
    np.savez(other, features=np.ones((16, 16)), g_feature=np.ones((1, 8)))
    command = [*FEATURES, "--dtype", "float32", "--clip-scores", "annotation"]
    result = tool(tmp_path, "import-features", *command, model=released)
    assert result.code == 0, result.output
    store = FeatureStore(tmp_path / "store")
    assert store.image_ids == ["0-100", "101", "1-100"]
    assert [store.captions(i) for i in range(3)] == [
        ["a dog runs", "cat runs"],
        ["a cat"],
        ["a dog"],
    ]
    assert store.clip_scores.tolist() == pytest.approx([0.0, 0.3, 0.1, 0.2])
    assert torch.equal(store.patch_feats(2), torch.ones(16, 16))
    with np.load(tmp_path / "npz/img_sp0/100.npz") as found:
        assert torch.equal(store.patch_feats(0), torch.from_numpy(found["features"]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{**ENTRIES[0], "image_id": None}], "entry 0: image_id: an id must be a number"),
        (Harmful(), "it asks for io.open|it asks for _io.open|asks for builtins.open"),
        ([{**ENTRIES[0], "image_id": Harmful()}], "it asks for"),
        ([{**ENTRIES[0], "target_ids": np.array([["x"]], dtype=object)}], "an array of type 'O8'"),
        ({"a": 1}, "holds no list"),
        ([], "holds no list"),
        ([{"image_id": 1}], "entry 0: no image_id and target_ids"),
        ([{**ENTRIES[0], "target_ids": np.zeros((2, 3))}], r"entry 0: target_ids \(2, 3\)"),
        (
            [{**ENTRIES[0], "target_ids": np.array([[9, 0]])}],
            "must be -1 to 4 with this vocabulary, got 9",
        ),
        ([{**ENTRIES[0], "target_ids": np.array([[-7, 0]])}], "with this vocabulary, got -7: pass"),
    ],
)
def test_other_pickles_are_refused_and_nothing_is_executed(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        read(content)
    assert not (tmp_path / "executed").exists()


def tool(tmp_path, name, *args, model, processes=1):
    """Run a command on the files in ``tmp_path``."""
    paths = [tmp_path / arg if str(arg).partition(".")[0] in PLACES else arg for arg in args]
    paths += ["--model", model, "--out", tmp_path / "store", "--device", "cpu", "--shard-size", 2]
    log = tmp_path / "log"
    return run(name, *paths, log=log, processes=processes, launcher=False)


@pytest.mark.parametrize("processes", [1, 2])
def test_released_features_become_a_store(released, tmp_path, processes):
    command = [*FEATURES, "--dtype", "float32", "--skip-missing", "--clip-scores", "annotation"]
    (tmp_path / "npz/img_sp0/100.npz").unlink()
    (tmp_path / "npz/img_sp1/103.npz").write_bytes(b"cut")
    other = {"features": np.ones((9, 16)), "g_feature": np.ones((1, 8))}
    np.savez(tmp_path / "npz/img_sp0/102.npz", **other)
    result = tool(tmp_path, "import-features", *command, model=released, processes=processes)
    assert result.code == 0, result.output
    assert "2 images in 3 shards" in result.output
    assert "3 skipped:\n  100: missing" in result.output
    assert "npz/img_sp1/103.npz cannot be read: it is not an .npz file" in result.output
    assert (
        "  102: features (9, 16) and g_feature (1, 8), but the first file has (16, 16)"
        in result.output
    )
    store = FeatureStore(tmp_path / "store")
    assert store.image_ids == ["101", "104"]
    clip = OpenCLIPBackbone(released)
    for i, number in enumerate((1, 4)):
        with np.load(tmp_path / f"npz/img_sp{number % 2}/{100 + number}.npz") as found:
            assert torch.equal(store.patch_feats(i), torch.from_numpy(found["features"]))
            whole = F.normalize(torch.from_numpy(found["g_feature"][0]), dim=0)
            torch.testing.assert_close(store.global_feats(i), whole)
        assert store.captions(i) == [CAPTIONS[number]]
        torch.testing.assert_close(store.caption_feats(i), clip.encode_text([CAPTIONS[number]])[0])
        assert store.clip_scores[i] == pytest.approx(0.5 + 0.1 * number)
    assert store.clip_head.name == CLIP_HEAD
    assert store.clip_head.is_file()


def test_without_parts_and_scores_both_are_found(released, tmp_path):
    """As for Flickr30k."""
    (tmp_path / "npz/img").mkdir()
    for file in (tmp_path / "npz").rglob("*.npz"):
        file.rename(tmp_path / "npz/img" / file.name)
    bare = [{k: e[k] for k in ("image_id", "target_ids")} for e in ENTRIES]
    (tmp_path / "pairs.pkl").write_bytes(pickle.dumps(bare))
    result = tool(tmp_path, "import-features", *FEATURES, "--dtype", "float32", model=released)
    assert result.code == 0, result.output
    store = FeatureStore(tmp_path / "store")
    for i in range(len(ENTRIES)):
        cosine = store.global_feats(i) @ store.caption_feats(i)
        assert store.clip_scores[i] == pytest.approx(2.5 * float(cosine), abs=1e-5)
    (tmp_path / "npz/img/102.npz").unlink()
    (tmp_path / "store/manifest.json").unlink()
    result = tool(tmp_path, "import-features", *FEATURES, model=released)
    assert "npz/img/102.npz: restore it, or skip all that are missing" in result.output


def test_imported_captions_train_with_exactly_the_released_indices(released, tmp_path):
    """UNK, & and # are words, and captions of 20 or more words have no EOS token."""
    vocabulary = Vocabulary(["a", "dog", "cat", "runs", "&", "#", "UNK"])
    vocabulary.to_file(tmp_path / "vocabulary.txt")
    ids = [[1, 7, 4], [5, 1, 6, 7], [7, 7], [1, 2, 4] * 6 + [1], [1, 2, 7, 4] * 5]
    targets = np.stack([np.array([*row, 0, *[-1] * 20][:20]) for row in ids])
    tokens = np.stack([np.array([0, *row, *[0] * 20][:20]) for row in ids])
    entries = [
        {**entry, "tokens_ids": tokens[i : i + 1], "target_ids": targets[i : i + 1]}
        for i, entry in enumerate(ENTRIES)
    ]
    (tmp_path / "pairs.pkl").write_bytes(pickle.dumps(entries))
    result = tool(tmp_path, "import-features", *FEATURES, model=released)
    assert result.code == 0, result.output
    dataset = SynthCaptionDataset(tmp_path / "store")
    captions = [dataset[i]["data_samples"].gt_caption for i in range(len(dataset))]
    encoded = vocabulary.encode_batch(captions, max_len=20)
    assert np.array_equal(encoded[0], tokens)
    assert np.array_equal(encoded[1], targets)


@pytest.mark.parametrize("name", ["import-features", "extract"])
def test_scores_are_kept_if_the_clip_of_the_features_made_them(released, tmp_path, name):
    args = [*(FEATURES if name == "import-features" else [*IMAGES, *WORDS])]
    args += ["--dtype", "float32"]

    def build(*more, offsets):
        scores = made + offsets
        rows = [{**e, "clipscore": score} for e, score in zip(ENTRIES, scores, strict=True)]
        (tmp_path / "pairs.pkl").write_bytes(pickle.dumps(rows))
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        result = tool(tmp_path, name, *args, *more, model=released)
        assert result.code == 0, result.output
        return FeatureStore(tmp_path / "store").clip_scores, result.output

    made, zeros = np.zeros(5), np.zeros(5)
    # Scores of this CLIP.
    made, output = build("--clip-scores", "model", offsets=zeros)
    assert "CLIP scores: computed with" in output
    # Small differences, as from captions with more words, and one outlier.
    offsets = np.array([0.01, -0.03, 0.5, 0.02, -0.02])
    found, output = build(offsets=offsets)
    np.testing.assert_allclose(found, made + offsets, atol=1e-5)
    assert "CLIP scores: as in the annotations" in output
    assert "annotations are kept: they differ by 0.020 (median of 5 captions)" in output
    # Scores of another CLIP.
    found, output = build(offsets=zeros + 0.13)
    np.testing.assert_allclose(found, made, atol=1e-5)
    assert "differ by 0.130 (median of 5 captions)" in output
    assert "--clip-scores annotation keeps them" in output
    found, output = build("--clip-scores", "annotation", offsets=zeros + 0.13)
    np.testing.assert_allclose(found, made + 0.13, atol=1e-5)


@pytest.mark.parametrize("name", ["import-features", "extract"])
def test_images_without_scores_are_counted_and_not_compared(released, tmp_path, name):
    args = [*(FEATURES if name == "import-features" else [*IMAGES, *WORDS]), "--skip-missing"]
    unscored = []
    for i in range(21):
        unscored.append({key: x for key, x in ENTRIES[0].items() if key != "clipscore"})
        unscored[-1]["image_id"] = 200 + i
        for folder, kind in (("npz/img_sp0", "npz"), ("images/0", "jpg")):
            shutil.copy(tmp_path / folder / f"100.{kind}", tmp_path / folder / f"{200 + i}.{kind}")
    (tmp_path / "pairs.pkl").write_bytes(pickle.dumps([*unscored, *ENTRIES]))
    result = tool(tmp_path, name, *args, model=released)
    assert "(median of 5 captions) from those of" in result.output
    shutil.rmtree(tmp_path / "store")
    result = tool(tmp_path, name, *args, "--clip-scores", "annotation", model=released)
    assert "21 of 26 images have no CLIP score in the annotations; theirs are comp" in result.output
    scores = FeatureStore(tmp_path / "store").clip_scores
    np.testing.assert_allclose(scores[21:], 0.5 + 0.1 * np.arange(5), atol=1e-5)
    shutil.rmtree(tmp_path / "store")
    for i in range(5):
        (tmp_path / f"npz/img_sp{i % 2}/{100 + i}.npz").unlink()
        (tmp_path / f"images/{i % 2}/{100 + i}.jpg").unlink()
    result = tool(tmp_path, name, *args, model=released)
    assert "none of the first 20 images that have scores in the annotations can" in result.output
    assert "CLIP scores: computed with" in result.output


@pytest.mark.parametrize("name", ["import-features", "extract"])
def test_scores_that_annotations_do_not_have_cannot_be_kept(released, tmp_path, name):
    rows = [{key: x for key, x in e.items() if key != "clipscore"} for e in ENTRIES]
    (tmp_path / "pairs.pkl").write_bytes(pickle.dumps(rows))
    args = FEATURES if name == "import-features" else [*IMAGES, *WORDS]
    result = tool(tmp_path, name, *args, "--clip-scores", "annotation", model=released)
    assert result.code == 1
    assert "annotations have no CLIP scores, got 'annotation'" in result.output
    assert not (tmp_path / "store" / "manifest.json").exists()


def test_the_released_images_can_be_extracted(released, tmp_path):
    result = tool(tmp_path, "extract", *IMAGES, *WORDS, model=released)
    assert result.code == 0, result.output
    store = FeatureStore(tmp_path / "store")
    assert store.image_ids == ["100", "101", "102", "103", "104"]
    assert [store.captions(i) for i in range(5)] == [[caption] for caption in CAPTIONS]


def test_invalid_input_is_refused(released, tmp_path):
    importing = "import-features"
    result = tool(tmp_path, importing, "images", *FEATURES[1:], model=released)
    assert "images/img_sp0/100.npz: set the paths with --path-template" in result.output
    result = tool(tmp_path, importing, *FEATURES, "--path-template", "{split}.npz", model=released)
    assert (
        "path_template must only have the fields {split_id} and {image_id}, got '{split}.npz'"
        in result.output
    )
    result = tool(tmp_path, importing, *FEATURES, "--path-template", "{image_id}", model=released)
    assert "npz/100: set the paths with --path-template" in result.output
    fewer = build_clip(tmp_path / "fewer", patch_size=8)
    result = tool(tmp_path, importing, *FEATURES, model=fewer)
    assert "have 16 patches each, which" in result.output
    other = build_clip(tmp_path / "other", width=8)
    result = tool(tmp_path, importing, *FEATURES, model=other)
    assert "features of width 16 and 8, but" in result.output
    result = tool(tmp_path, "extract", *IMAGES, model=released)
    assert "contains word indices: pass the vocabulary.txt" in result.output
    broken = [path for path in (tmp_path / "npz").rglob("*.npz") if path.write_bytes(b"cut")]
    result = tool(tmp_path, importing, *FEATURES, model=released)
    assert f"none of the first {len(broken)} files can be read" in result.output
    assert not (tmp_path / "store").exists()
