import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from pcm_plugin.datasets.synth_caption import SynthCaptionDataset
from pcm_plugin.errors import UserError
from pcm_plugin.formats.feature_shard import FORMAT, write_feature_shard
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.pair_selection import PairSelection, load_pairs
from pcm_plugin.formats.shards import Shard, ShardFolder
from pcm_plugin.models.functional.retrieval import chunked_topk
from pcm_plugin.synthesis.refine.assignment import Among, first_of_texts
from pcm_plugin.synthesis.refine.pairs import refine_pairs
from pcm_plugin.synthesis.refine.settings import RefineSettings
from tests.builders import build_store
from tests.test_tools.commands import run

CAPTIONS = [[f"caption {i} {j}" for j in range(1 + i % 3)] for i in range(11)]


@pytest.fixture
def store(tmp_path):
    build_store(tmp_path / "store", CAPTIONS, clip_dim=8, dtype=torch.float32)
    return tmp_path / "store"


def by_definition(path, num_images, num_captions, sentences=None, among=None):
    """SynC written out: (image, score) of each caption. ``among``: numbers of both to use."""
    reader = FeatureStore(path)
    numbers, rows = among or (range(len(reader)), range(reader.num_captions))
    images = torch.stack([reader.global_feats(i) for i in numbers])
    captions = torch.stack([reader.caption_feats(j) for j in rows])
    sentences = captions if sentences is None else F.normalize(sentences, dim=1)
    chosen = []
    for j, caption in enumerate(captions):
        scores = {}
        for i in (images @ caption).topk(num_images).indices.tolist():
            own = (captions @ images[i]).topk(num_captions).indices
            scores[i] = max(round(float(sentences[k] @ sentences[j]), 5) for k in own)
        chosen.append(max(scores.items(), key=lambda item: item[1]))
    return chosen


@pytest.mark.parametrize("chunk", [3, 5, 100])
@pytest.mark.parametrize("own_sentences", [False, True])
def test_some_images_and_captions_are_assigned_as_if_there_were_no_others(
    tmp_path, store, chunk, own_sentences
):
    reader = FeatureStore(store)
    every = load_pairs(reader)
    selected = np.isin(every.image, [0, 2, 3, 5, 6, 8, 10])
    selected[[2, 9]] = False  # not all captions of an image
    some = PairSelection(*(values[selected] for values in every))
    some.to_file(tmp_path / "some.safetensors", reader.identity)
    images, captions = np.unique(some.image), some.caption
    sentences = None
    if own_sentences:
        sentences = torch.randn(21, 4, generator=torch.Generator().manual_seed(1))
        save_file({"sentence_feats": sentences}, tmp_path / "s.safetensors")
    settings = RefineSettings(num_images=4, num_captions=2, keep=1.0)
    path = tmp_path / "s.safetensors" if own_sentences else None
    args = (store, settings, tmp_path / "out", path, chunk, "cpu")
    some = Among.of_pairs(reader, tmp_path / "some.safetensors")
    pairs = refine_pairs(*args, among=some)
    own = None if sentences is None else sentences[captions]
    among = images.tolist(), captions.tolist()
    expected = by_definition(store, 4, 2, own, among)
    assert pairs.caption.tolist() == captions.tolist()
    assert pairs.image.tolist() == [images[image] for image, _ in expected]
    np.testing.assert_allclose(pairs.score, [score for _, score in expected], atol=1e-5)
    own_scores = [
        float(reader.global_feats(int(i)) @ reader.caption_feats(int(j)))
        for i, j in zip(pairs.image, pairs.caption, strict=True)
    ]
    np.testing.assert_allclose(pairs.clip_score, 2.5 * np.array(own_scores), atol=1e-5)
    with pytest.raises(ValueError, match=r"made with other settings \(among: '.*' there, None now"):
        refine_pairs(*args)


def test_the_filter_among_some_pairs(tmp_path, store):
    reader = FeatureStore(store)
    every = load_pairs(reader)
    some = PairSelection(*(values[::2] for values in every))
    some.to_file(tmp_path / "some.safetensors", reader.identity)
    args = [store, "--method", "filter", "--keep", 1, "--among", tmp_path / "some.safetensors"]
    result = run("refine", *args, "--out", tmp_path / "out", log=tmp_path / "log")
    assert result.code == 0, result.output
    pairs = PairSelection.from_file(tmp_path / "out" / "pairs.safetensors", reader.identity)
    assert np.array_equal(pairs.image, some.image)
    assert np.array_equal(pairs.caption, some.caption)
    np.testing.assert_allclose(pairs.score, some.clip_score)


@pytest.mark.parametrize("images", [[0, 3], [5, 6], [10, 10], [0, 1]])
def test_the_filter_needs_the_own_image_of_every_caption(tmp_path, store, images):
    """As SynC's pairs may lack it; captions 1 and 3 have the images 1 and 2."""
    among = Among(np.unique(images), np.array([1, 3]))
    settings = RefineSettings(method="filter", keep=1.0)
    with pytest.raises(UserError, match=r"those of [12] of the 2 captions, such as 'caption"):
        refine_pairs(store, settings, tmp_path / "out", device="cpu", among=among)
    assert not (tmp_path / "out").exists()


def test_the_filter_among_pairs_with_another_store(tmp_path, store):
    """The assigning store has the images in another order."""
    feats = build_store(tmp_path / "again", CAPTIONS, clip_dim=8, dtype=torch.float32)
    build_store(
        tmp_path / "other",
        CAPTIONS[::-1],
        clip_dim=8,
        dtype=torch.float32,
        feats={key: feats[key].flip(0) for key in ("patch_feats", "global_feats")},
        ids=[f"image{i}" for i in range(11)][::-1],
    )
    reader = FeatureStore(store)
    among = Among(np.array([1, 2, 7]), np.array([1, 2, 3, 4, 5]))
    settings = RefineSettings(method="filter", keep=1.0)
    args = (store, settings, tmp_path / "out", None, 100, "cpu", None, tmp_path / "other")
    pairs = refine_pairs(*args, among=among)
    assert pairs.caption.tolist() == among.captions.tolist()
    assert np.array_equal(pairs.image, reader.caption_to_image(pairs.caption))


@pytest.mark.parametrize("chunk", [3, 5, 100])
@pytest.mark.parametrize("own_sentences", [False, True])
def test_sync_matches_its_definition(tmp_path, store, chunk, own_sentences):
    sentences = None
    if own_sentences:
        sentences = torch.randn(21, 4, generator=torch.Generator().manual_seed(1))
        save_file({"sentence_feats": sentences}, tmp_path / "s.safetensors")
    settings = RefineSettings(num_images=4, num_captions=2, keep=1.0)
    path = tmp_path / "s.safetensors" if own_sentences else None
    pairs = refine_pairs(store, settings, tmp_path / "out", path, chunk, "cpu")
    expected = by_definition(store, 4, 2, sentences)
    assert pairs.caption.tolist() == list(range(21))
    assert pairs.image.tolist() == [image for image, _ in expected]
    np.testing.assert_allclose(pairs.score, [score for _, score in expected], atol=1e-5)
    reader = FeatureStore(store)
    cosines = [
        float(reader.global_feats(int(i)) @ reader.caption_feats(int(j)))
        for i, j in zip(pairs.image, pairs.caption, strict=True)
    ]
    np.testing.assert_allclose(pairs.clip_score, 2.5 * np.array(cosines), atol=1e-6)
    for ours, read in zip(
        pairs,
        PairSelection.from_file(tmp_path / "out/pairs.safetensors", reader.identity),
        strict=True,
    ):
        assert np.array_equal(ours, read)


def test_of_equal_images_the_nearest_is_taken(tmp_path):
    """The other image's caption is the very same; the nearest one's differs in the last bits."""

    def at(*angles):
        return torch.tensor([[math.cos(angle), math.sin(angle)] for angle in angles])

    rows = [{"image_id": str(i), "captions": [f"caption {i}"]} for i in range(2)]
    shard = Shard("shard-00000", 2, "made by hand")
    folder = ShardFolder.open_for_write(tmp_path / "store", FORMAT, {}, [shard])
    images, captions = at(-0.01, 0.005), at(0.0, 4e-4)
    write_feature_shard(folder, shard, rows, torch.zeros(2, 1, 4), images, captions, torch.ones(2))
    settings = RefineSettings(num_images=2, num_captions=1, keep=1.0)
    pairs = refine_pairs(tmp_path / "store", settings, tmp_path / "out", device="cpu")
    assert pairs.image.tolist() == [1, 1]
    assert pairs.score.tolist() == [1.0, 1.0]


def test_the_worst_pairs_are_dropped(tmp_path, store):
    every = refine_pairs(store, RefineSettings(keep=1.0), tmp_path / "all", device="cpu")
    most = refine_pairs(store, RefineSettings(keep=0.8), tmp_path / "most", device="cpu")
    assert len(most.caption) == int(0.8 * 21)
    dropped = set(every.caption) - set(most.caption)
    assert max(every.score[list(dropped)]) <= min(most.score)
    good = refine_pairs(store, RefineSettings(min_clip_score=0.5), tmp_path / "good", device="cpu")
    assert good.caption.tolist() == every.caption[every.clip_score >= 0.5].tolist()
    with pytest.raises(ValueError, match=r"no pair has min_clip_score=9; the best has \d"):
        refine_pairs(store, RefineSettings(min_clip_score=9), tmp_path / "none", device="cpu")


def test_the_filter_leaves_captions_with_their_images(tmp_path, store):
    settings = RefineSettings(method="filter", keep=0.5)
    pairs = refine_pairs(store, settings, tmp_path / "out", device="cpu")
    reader = FeatureStore(store)
    assert np.array_equal(pairs.image, reader.caption_to_image(pairs.caption))
    best = np.sort(np.argsort(-reader.clip_scores)[: int(0.5 * 21)])
    assert np.array_equal(pairs.caption, best)
    assert np.array_equal(pairs.clip_score, reader.clip_scores[best])


def test_the_best_image_of_each_text_is_taken(tmp_path):
    """Four images per caption: `filter` takes the best by CLIP score, SynC one pair per text."""
    texts = [f"caption {i // 4}" for i in range(24)]
    build_store(tmp_path / "store", [[text] for text in texts], clip_dim=8, dtype=torch.float32)
    reader = FeatureStore(tmp_path / "store")
    settings = RefineSettings(method="filter", pairs_per_caption=1, keep=1.0)
    best = refine_pairs(tmp_path / "store", settings, tmp_path / "best", device="cpu")
    scores = reader.clip_scores.reshape(6, 4)
    assert best.image.tolist() == (4 * np.arange(6) + scores.argmax(1)).tolist()
    np.testing.assert_array_equal(best.clip_score, scores.max(1))
    two = RefineSettings(method="filter", pairs_per_caption=2, keep=0.5)
    pairs = refine_pairs(tmp_path / "store", two, tmp_path / "two", device="cpu")
    of_text = np.sort(scores, axis=1)[:, -2:]
    np.testing.assert_array_equal(np.sort(pairs.clip_score), np.sort(of_text, axis=None)[-6:])
    sync = RefineSettings(pairs_per_caption=1, keep=1.0, num_images=5)
    chosen = refine_pairs(tmp_path / "store", sync, tmp_path / "sync", device="cpu")
    assert sorted(texts[j] for j in chosen.caption) == sorted(set(texts))
    args = [tmp_path / "store", "--method", "filter", "--pairs-per-caption", 1, "--keep", 1]
    args += ["--out", tmp_path / "cli", "--device", "cpu"]
    result = run("refine", *args, log=tmp_path / "log")
    assert "6 of 24 pairs" in result.output
    file = "pairs.safetensors"
    assert (tmp_path / "cli" / file).read_bytes() == (tmp_path / "best" / file).read_bytes()


def test_pairs_of_a_text_have_different_images():
    texts, images = np.array([0, 0, 1, 0, 1]), np.array([5, 5, 5, 6, 7])
    assert first_of_texts(texts, images, 1).tolist() == [True, False, True, False, False]
    assert first_of_texts(texts, images, 2).tolist() == [True, False, True, True, True]


def test_a_dataset_gives_the_chosen_pairs(tmp_path, store):
    refine_pairs(store, RefineSettings(keep=0.7), tmp_path / "out", device="cpu")
    pairs = PairSelection.from_file(
        tmp_path / "out" / "pairs.safetensors", FeatureStore(store).identity
    )
    data = SynthCaptionDataset(store, pairs=tmp_path / "out" / "pairs.safetensors")
    reader = FeatureStore(store)
    texts = [text for own in CAPTIONS for text in own]
    assert len(data) == len(pairs.caption)
    for item, (i, j, score, _) in zip(data, zip(*pairs, strict=True), strict=False):
        sample = item["data_samples"]
        assert (sample.image_id, sample.gt_caption) == (f"image{i}", texts[j])
        assert sample.clip_score == pytest.approx(score)
        assert torch.equal(item["patch_feats"], reader.patch_feats(int(i)))
        assert torch.equal(item["global_feats"], reader.global_feats(int(i)))
    build_store(tmp_path / "small", CAPTIONS[:2])
    with pytest.raises(ValueError, match="was made from another store"):
        SynthCaptionDataset(tmp_path / "small", pairs=tmp_path / "out" / "pairs.safetensors")
    with pytest.raises(FileNotFoundError, match=r"pcm refine STORE"):
        SynthCaptionDataset(store, pairs=tmp_path / "nowhere")


@pytest.mark.parametrize("sizes", [[7], [3, 4], [1] * 7, [2, 0, 5]])
def test_nearest_does_not_depend_on_the_chunks(sizes):
    generator = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(5, 4, generator=generator), torch.randn(7, 4, generator=generator)
    for k in (1, 3, 9):
        values, where = chunked_topk(queries, keys.split(sizes), k)
        expected = (queries @ keys.T).sort(dim=1, descending=True)
        assert torch.equal(where, expected.indices[:, :k])
        torch.testing.assert_close(values, expected.values[:, :k])
    with pytest.raises(ValueError, match="`k` must be at least 1, got `0`"):
        chunked_topk(queries, [keys], 0)


@pytest.mark.parametrize("processes", [1, 3])
def test_command_line_with_ranks(tmp_path, store, processes):
    args = [store, "--out", tmp_path / "out", "--chunk", 4, "--device", "cpu"]
    log = tmp_path / "log"
    result = run("refine", *args, log=log, processes=processes, launcher=False)
    assert result.code == 0, result.output
    assert "18 of 21 pairs" in result.output
    refine_pairs(store, RefineSettings(), tmp_path / "api", chunk=4, device="cpu")
    for file in (tmp_path / "api").glob("[!.]*"):
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()


def test_invalid_input_is_refused(tmp_path, store):
    build_store(tmp_path / "mute", [[], []])
    with pytest.raises(ValueError, match="have no captions: there is nothing to refine"):
        refine_pairs(tmp_path / "mute", RefineSettings(), tmp_path / "out", device="cpu")
    save_file({"sentence_feats": torch.ones(3, 4)}, tmp_path / "short.safetensors")
    with pytest.raises(ValueError, match=r"one row for each of the 21 .* got shape \(3, 4\)"):
        refine_pairs(store, RefineSettings(), tmp_path / "out", tmp_path / "short.safetensors")
    for wrong in ({"method": "x"}, {"keep": 0}, {"num_images": 0}, {"pairs_per_caption": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            RefineSettings(**wrong)
    refine_pairs(store, RefineSettings(), tmp_path / "out", device="cpu")
    with pytest.raises(ValueError, match=r"settings \(keep: 0.9 there, 0.5 now\)"):
        refine_pairs(store, RefineSettings(keep=0.5), tmp_path / "out", device="cpu")
    manifest = json.loads((store / "manifest.json").read_text())
    assert "pairs" not in str(manifest)
