import re

import numpy as np
import pytest
import torch

from pcm_plugin.datasets.synth_caption import SynthCaptionDataset
from pcm_plugin.errors import UserError
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.pair_selection import PairSelection
from pcm_plugin.synthesis.pipeline.photo_pool import refine_with_pool
from pcm_plugin.synthesis.refine.settings import RefineSettings
from tests.builders import build_store
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
