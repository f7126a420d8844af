"""Refined features of a store: their rows, their restarts, their use and their command."""

import re

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from pcm_plugin.datasets.synth_caption import SynthCaptionDataset
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.pair_selection import PairSelection, load_pairs
from pcm_plugin.formats.refined_features import FEATURES_FILE, load_refined_features
from pcm_plugin.models.functional.contrast import refine_by_contrast
from pcm_plugin.synthesis.refine import features as contrast
from pcm_plugin.synthesis.refine.features import refine_features
from pcm_plugin.synthesis.refine.pairs import refine_pairs
from pcm_plugin.synthesis.refine.settings import ContrastSettings, RefineSettings
from tests.builders import build_store
from tests.test_tools.commands import run

CAPTIONS = [[f"caption {i} {j}" for j in range(1 + i % 3)] for i in range(11)]
SETTINGS = ContrastSettings(steps=3, temperature=0.1, negatives=9)


@pytest.fixture
def store(tmp_path):
    build_store(tmp_path / "store", CAPTIONS, clip_dim=8, dtype=torch.float32)
    return tmp_path / "store"


@pytest.mark.parametrize("chunk", [3, 100])
def test_row_j_is_the_refined_image_of_caption_j(tmp_path, store, chunk):
    feats = refine_features(store, SETTINGS, tmp_path / "out", chunk, "cpu")
    reader = FeatureStore(store)
    everyone = range(reader.num_captions)
    texts = reader.read_rows("caption_feats", everyone)
    images = reader.read_rows("global_feats", reader.caption_to_image(everyone))
    assert feats.shape == (21, 8)
    assert feats.dtype == torch.float16
    torch.testing.assert_close(feats.float().norm(dim=1), torch.ones(21), atol=2e-3, rtol=0)
    # Which captions are the negatives is a matter of the seed: with all, of nothing.
    all_of_them = ContrastSettings(steps=3, temperature=0.1, negatives=50)
    feats = refine_features(store, all_of_them, tmp_path / "all", chunk, "cpu")
    expected = refine_by_contrast(images, texts, texts, 0.1, 3, SETTINGS.step_size)
    torch.testing.assert_close(feats.float(), expected, atol=1e-3, rtol=0)
    assert torch.equal(load_refined_features(tmp_path / "all" / FEATURES_FILE, reader), feats)


def test_the_negatives_are_a_choice_of_the_seed(tmp_path, store):
    def features(name, **changes):
        settings = ContrastSettings(**{**SETTINGS.__dict__, **changes})
        return refine_features(store, settings, tmp_path / name, device="cpu")

    first = features("first")
    assert torch.equal(features("same"), first)
    assert not torch.equal(features("seed", seed=1), first)
    assert not torch.equal(features("more", negatives=20), first)
    chunks = refine_features(store, SETTINGS, tmp_path / "chunks", 2, "cpu")
    torch.testing.assert_close(chunks.float(), first.float(), atol=1e-3, rtol=0)


def test_negatives_among_some_pairs(tmp_path, store):
    """Held-out captions are no negatives; their own rows are refined too."""
    reader = FeatureStore(store)
    every = load_pairs(reader)
    some = PairSelection(*(values[::2].copy() for values in every))
    some.to_file(tmp_path / "some.safetensors", reader.identity)
    args = [store, "--method", "contrast", "--steps", 3, "--temperature", 0.1, "--device", "cpu"]
    args += ["--out", tmp_path / "out"]
    among = ["--among", tmp_path / "some.safetensors"]
    result = run("refine", *args, *among, log=tmp_path / "log")
    assert result.code == 0, result.output
    texts = reader.read_rows("caption_feats", range(21))
    images = reader.read_rows("global_feats", reader.caption_to_image(range(21)))
    expected = refine_by_contrast(images, texts, texts[::2], 0.1, 3, SETTINGS.step_size)
    feats = load_refined_features(tmp_path / "out" / FEATURES_FILE, reader)
    torch.testing.assert_close(feats.float(), expected, atol=1e-3, rtol=0)
    result = run("refine", *args, log=tmp_path / "log")
    assert re.search(r"made with other settings \(among: '\d+ images, 11 captions", result.output)


def test_a_run_again_makes_what_is_missing(tmp_path, store, monkeypatch):
    whole = refine_features(store, SETTINGS, tmp_path / "whole", 4, "cpu")
    calls = []

    def fails_at_third(*args):
        calls.append(len(args[0]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return refine_by_contrast(*args)

    monkeypatch.setattr(contrast, "refine_by_contrast", fails_at_third)
    with pytest.raises(KeyboardInterrupt):
        refine_features(store, SETTINGS, tmp_path / "out", 4, "cpu")
    assert not (tmp_path / "out" / FEATURES_FILE).exists()
    assert torch.equal(refine_features(store, SETTINGS, tmp_path / "out", 4, "cpu"), whole)
    assert calls == [4, 4, 4, 4, 4, 4, 1]
    refine_features(store, SETTINGS, tmp_path / "out", 4, "cpu")
    assert len(calls) == 7
    for file in (tmp_path / "whole").glob("[!.]*"):
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()
    with pytest.raises(ValueError, match=r"settings \(steps: 3 there, 10 now"):
        refine_features(
            store, ContrastSettings(temperature=0.1, negatives=9), tmp_path / "out", 4, "cpu"
        )


@pytest.mark.parametrize("processes", [1, 3])
def test_command_line_with_ranks(tmp_path, store, processes):
    args = [store, "--method", "contrast", "--out", tmp_path / "out", "--chunk", 4]
    args += ["--steps", 3, "--temperature", 0.1, "--negatives", 9, "--device", "cpu"]
    result = run("refine", *args, log=tmp_path / "log", processes=processes, launcher=False)
    assert result.code == 0, result.output
    assert "21 features, cosine with the old ones 0." in result.output
    refine_features(store, SETTINGS, tmp_path / "api", 4, "cpu")
    for file in (tmp_path / "api").glob("[!.]*"):
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()


def test_options_of_another_method_are_refused(tmp_path, store):
    log = tmp_path / "log"
    result = run("refine", store, "--out", tmp_path, "--steps", 3, log=log)
    assert result.code == 2
    assert "--method sync has no --steps" in result.output
    args = ["--method", "contrast", "--keep", 0.5]
    assert "contrast has no --keep" in run("refine", store, "--out", "x", *args, log=log).output


def test_training_gets_the_refined_features(tmp_path, store):
    feats = refine_features(store, SETTINGS, tmp_path / "out", device="cpu")
    file = tmp_path / "out" / FEATURES_FILE
    data = SynthCaptionDataset(store, features="global", refined_features=file)
    plain = SynthCaptionDataset(store, features="global")
    reader = FeatureStore(store)
    assert len(data) == len(plain) == 21
    for j, (item, before) in enumerate(zip(data, plain, strict=False)):
        assert item.keys() == before.keys() == {"data_samples", "global_feats"}
        torch.testing.assert_close(item["global_feats"], F.normalize(feats[j].float(), dim=0))
        owner = int(reader.caption_to_image([j])[0])
        assert torch.equal(before["global_feats"], reader.global_feats(owner))
        assert item["data_samples"].gt_caption == reader.caption(j)
    some = SynthCaptionDataset(store, features="global", refined_features=file, max_pairs=5, seed=3)
    texts = [text for own in CAPTIONS for text in own]
    for item in some:
        row = feats[texts.index(item["data_samples"].gt_caption)].float()
        torch.testing.assert_close(item["global_feats"], F.normalize(row, dim=0))


def test_refined_features_that_do_not_fit_are_refused(tmp_path, store):
    refine_features(store, SETTINGS, tmp_path / "out", device="cpu")
    file = tmp_path / "out" / FEATURES_FILE
    for wrong in ({}, {"features": "text"}, {"features": "global", "test_mode": True}):
        with pytest.raises(ValueError, match=r"requires test_mode=False and features='global'"):
            SynthCaptionDataset(store, refined_features=file, **wrong)
    build_store(tmp_path / "other", CAPTIONS, clip_dim=8, seed=1)
    with pytest.raises(ValueError, match="was made from another store"):
        SynthCaptionDataset(tmp_path / "other", features="global", refined_features=file)
    with pytest.raises(FileNotFoundError, match="--method contrast --out FOLDER"):
        SynthCaptionDataset(store, features="global", refined_features=tmp_path / "nowhere")
    save_file(load_file(file), tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match="must hold refined features"):
        SynthCaptionDataset(
            store, features="global", refined_features=tmp_path / "bare.safetensors"
        )
    moving = refine_pairs(store, RefineSettings(keep=1.0), tmp_path / "sync", device="cpu")
    moved = int((FeatureStore(store).caption_to_image(moving.caption) != moving.image).sum())
    assert moved
    with pytest.raises(ValueError, match=f"assigns another image to {moved} captions"):
        SynthCaptionDataset(
            store,
            features="global",
            refined_features=file,
            pairs=tmp_path / "sync" / "pairs.safetensors",
        )
    # Pairs that leave captions with their images go together with it.
    own = RefineSettings(method="filter", keep=0.5)
    refine_pairs(store, own, tmp_path / "own", device="cpu")
    pairs = tmp_path / "own" / "pairs.safetensors"
    data = SynthCaptionDataset(store, features="global", refined_features=file, pairs=pairs)
    assert len(data) == 10
    texts = [text for own in CAPTIONS for text in own]
    for item in data:
        row = load_file(file)["global_feats"][texts.index(item["data_samples"].gt_caption)]
        torch.testing.assert_close(item["global_feats"], F.normalize(row.float(), dim=0))


def test_invalid_settings_are_refused(tmp_path, store):
    for wrong in ({"steps": 0}, {"negatives": 0}, {"step_size": 0}, {"temperature": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            ContrastSettings(**wrong)
    build_store(tmp_path / "mute", [[], []])
    with pytest.raises(ValueError, match="there is nothing to refine"):
        refine_features(tmp_path / "mute", SETTINGS, tmp_path / "out", device="cpu")
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        refine_features(store, SETTINGS, tmp_path / "out", 0)
