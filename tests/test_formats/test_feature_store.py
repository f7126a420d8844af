import gc
import json
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from pcm_plugin.formats.captions.record import Caption
from pcm_plugin.formats.feature_shard import FORMAT, write_caption_shard, write_feature_shard
from pcm_plugin.formats.feature_store import FeatureStore, is_caption_store
from pcm_plugin.formats.shards import Shard, ShardFolder
from tests.builders import build_caption_store, build_store


def plan(count):
    return [Shard(f"shard-{i:05d}", 2, "0") for i in range(count)]


CAPTIONS = [["a dog", "the dog"], ["a cat"], ["one", "two", "three"], [], ["caf\u00e9 \u732b"]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_row_is_read_back(tmp_path, dtype):
    truth = build_store(tmp_path / "store", CAPTIONS, dtype=dtype)
    store = FeatureStore(tmp_path / "store")
    assert (len(store), store.num_captions) == (5, 7)
    assert (store.num_patches, store.patch_dim, store.clip_dim) == (4, 6, 5)
    assert store.image_ids == [f"image{i}" for i in range(5)]
    assert store.caption_offsets.tolist() == [0, 2, 3, 6, 6, 7]
    for i in (4, 0, 3, 1, 2):
        assert store.captions(i) == CAPTIONS[i]
        assert torch.equal(store.patch_feats(i), truth["patch_feats"][i])
        assert torch.equal(store.global_feats(i), truth["global_feats"][i])
    for j in range(7):
        assert torch.equal(store.caption_feats(j), truth["caption_feats"][j])
    assert torch.equal(torch.from_numpy(store.clip_scores), truth["clip_scores"])


def test_a_row_is_a_copy(tmp_path):
    truth = build_store(tmp_path / "store", CAPTIONS, dtype=torch.float32)
    store = FeatureStore(tmp_path / "store")
    store.patch_feats(0).zero_()
    assert torch.equal(store.patch_feats(0), truth["patch_feats"][0])


def test_invalid_indices_raise_index_errors(tmp_path):
    build_store(tmp_path / "store", CAPTIONS)
    store = FeatureStore(tmp_path / "store")
    for index in (-1, 5):
        with pytest.raises(IndexError, match=f"index must be 0 to 4 in .*, got {index}"):
            store.global_feats(index)


def test_a_used_store_can_be_pickled(tmp_path):
    truth = build_store(tmp_path / "store", CAPTIONS)
    store = FeatureStore(tmp_path / "store")
    store.patch_feats(2)
    sent = pickle.dumps(store)
    assert len(sent) < 3000
    assert torch.equal(pickle.loads(sent).patch_feats(2), truth["patch_feats"][2])


def test_missing_unfinished_and_cut_stores_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere; make one with: pcm extract"):
        FeatureStore(tmp_path / "nowhere")
    build_store(tmp_path / "store", CAPTIONS)
    ShardFolder.open_for_write(tmp_path / "store", FORMAT, {"model": "random", "seed": 0}, plan(4))
    with pytest.raises(ValueError, match="has 3 of 4 shards"):
        FeatureStore(tmp_path / "store")
    ShardFolder.open_for_write(tmp_path / "store", FORMAT, {"model": "random", "seed": 0}, plan(3))
    shard = tmp_path / "store" / "shard-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"missing or cut: shard-00001.safetensors"):
        FeatureStore(tmp_path / "store")


def test_checksums_find_a_changed_byte(tmp_path):
    build_store(tmp_path / "store", CAPTIONS)
    folder = ShardFolder(tmp_path / "store", FORMAT)
    assert folder.find_damaged() == []
    shard = tmp_path / "store" / "shard-00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert folder.find_damaged(checksums=False) == []
    assert folder.find_damaged() == ["shard-00001.safetensors"]


def test_other_settings_are_refused_and_named(tmp_path):
    folder = ShardFolder.open_for_write(tmp_path, "x", {"steps": 20, "size": [64, 64]}, plan(1))
    folder.commit(plan(1)[0], [], 1)
    with pytest.raises(ValueError, match=r"steps: 20 there, 30 now\): pass the old ones"):
        ShardFolder.open_for_write(tmp_path, "x", {"steps": 30, "size": (64, 64)}, plan(1))
    with pytest.raises(ValueError, match="must hold 'y', got 'x'"):
        ShardFolder.open_for_write(tmp_path, "y", {}, plan(1))


def test_a_folder_without_shards_accepts_other_settings(tmp_path):
    first = ShardFolder.open_for_write(tmp_path, "x", {"steps": 20}, plan(1))
    second = ShardFolder.open_for_write(tmp_path, "x", {"steps": 30}, plan(2))
    with pytest.raises(ValueError, match="steps: 30 there, 20 now"):
        first.commit(plan(1)[0], [], 1)
    second.commit(plan(1)[0], [], 1)
    assert ShardFolder(tmp_path, "x").manifest["settings"] == {"steps": 30}


def test_a_shard_of_other_sizes_is_refused(tmp_path):
    build_store(tmp_path / "store", CAPTIONS)
    folder = ShardFolder(tmp_path / "store", FORMAT)
    one = {"image_id": "x", "captions": ["a"]}
    feats = (torch.ones(1, 4, 7).half(), torch.ones(1, 5), torch.ones(1, 5), torch.ones(1))
    with pytest.raises(ValueError, match="patch_dim: 6 there, 7 now"):
        write_feature_shard(folder, Shard("shard-00009", 1, "0"), [one], *feats)
    with pytest.raises(ValueError, match="1 captions, 1 caption_feats and 2 clip_scores"):
        write_feature_shard(folder, Shard("shard-00009", 1, "0"), [one], *feats[:3], torch.ones(2))
    assert "shard-00009" not in json.loads((tmp_path / "store/manifest.json").read_text())["shards"]


def _add(path, names):
    for name in names:
        (path / name).write_text(name)
        ShardFolder(path, "x").commit(Shard(name, 1, "0"), [name], 1)


def test_processes_can_list_shards_at_the_same_time(tmp_path):
    names = [f"shard-{i:05d}" for i in range(60)]
    ShardFolder.open_for_write(tmp_path, "x", {}, plan(len(names)))
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_add, args=(tmp_path, names[i::3])) for i in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert list(ShardFolder(tmp_path, "x").shards) == names


def test_other_samples_are_refused_and_fewer_are_made_again(tmp_path):
    folder = ShardFolder.open_for_write(tmp_path, "x", {}, plan(2))
    for shard in plan(2):
        folder.commit(shard, [], 2)
    with pytest.raises(ValueError, match=r"made from other samples \(shard-00001 from 2"):
        ShardFolder.open_for_write(
            tmp_path, "x", {}, [plan(1)[0], Shard("shard-00001", 2, "other")]
        )
    assert ShardFolder(tmp_path, "x").complete
    # A last shard that has grown is unfinished until it is made again.
    grown = [plan(1)[0], Shard("shard-00001", 3, "grown")]
    folder = ShardFolder.open_for_write(tmp_path, "x", {}, grown)
    assert list(folder.shards) == ["shard-00000"]
    assert not ShardFolder(tmp_path, "x").complete
    folder.commit(grown[1], [], 3)
    assert ShardFolder(tmp_path, "x").complete


def test_a_shard_may_be_empty(tmp_path):
    folder = ShardFolder.open_for_write(tmp_path, FORMAT, {}, plan(3))
    for i, shard in enumerate(plan(3)):
        count = i % 2
        images = [{"image_id": "one", "captions": ["a dog"]}][:count]
        feats = torch.ones(count, 4, 6).half(), torch.ones(count, 5)
        write_feature_shard(folder, shard, images, *feats, torch.ones(count, 5), torch.ones(count))
    store = FeatureStore(tmp_path)
    assert store.image_ids == ["one"]
    assert store.patch_feats(0).shape == (4, 6)
    assert store.captions(0) == ["a dog"]
    assert store.read_rows("caption_feats", [0]).shape == (1, 5)


def mapped_kb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssFile")))


def test_a_readers_memory_does_not_grow_with_the_store(tmp_path):
    """40 MB of patches, read whole in shuffled order."""
    build_store(tmp_path / "store", [["x"]] * 400, num_patches=49, patch_dim=1024, shard_size=40)
    store = FeatureStore(tmp_path / "store")
    before = mapped_kb()
    order = np.random.default_rng(0).permutation(400)
    for start in range(0, 400, 32):
        store.read_rows("patch_feats", order[start : start + 32])
    assert mapped_kb() - before < 4000


def open_files(folder):
    links = (os.path.realpath(link) for link in Path("/proc/self/fd").iterdir())
    return sum(link.startswith(str(folder)) for link in links)


def test_more_shards_than_open_files(tmp_path, monkeypatch):
    monkeypatch.setattr("pcm_plugin.formats.piece_reader._MAX_OPEN_FILES", 2)
    given = build_store(tmp_path / "store", [["x"]] * 12)
    store = FeatureStore(tmp_path / "store")
    order = np.random.default_rng(0).permutation(12)
    assert torch.equal(store.read_rows("patch_feats", order), given["patch_feats"][order])
    assert open_files(tmp_path) == 2
    again = pickle.loads(pickle.dumps(store))
    assert torch.equal(again.read_rows("patch_feats", range(3, 9)), given["patch_feats"][3:9])
    del store, again
    gc.collect()
    assert open_files(tmp_path) == 0


def test_a_replaced_shard_is_named(tmp_path):
    build_store(tmp_path / "store", [["x"]] * 2)
    store = FeatureStore(tmp_path / "store")
    path = tmp_path / "store" / "shard-00000.safetensors"
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes())
    copy.rename(path)
    with pytest.raises(ValueError, match=r"00000.safetensors was changed since .*open it again"):
        store.read_rows("patch_feats", [0])


def test_a_truncated_shard_is_named(tmp_path):
    build_store(tmp_path / "store", [["x"]] * 2, patch_dim=512)
    store = FeatureStore(tmp_path / "store")
    path = tmp_path / "store" / "shard-00000.safetensors"
    store.read_rows("patch_feats", [0])
    os.truncate(path, path.stat().st_size - 3000)
    with pytest.raises(ValueError, match=r"shard-00000.safetensors is cut: run the command that"):
        store.read_rows("patch_feats", [0, 1])


def test_a_store_of_captions_alone(tmp_path):
    texts = ["a dog", "caf\u00e9 \u732b", "a dog"]
    feats = build_caption_store(tmp_path / "store", texts)
    store = FeatureStore(tmp_path / "store")
    assert not store.has_images
    assert (len(store), store.num_captions) == (3, 3)
    assert (store.num_patches, store.patch_dim, store.clip_dim) == (0, 0, 5)
    assert store.image_ids == ["caption0", "caption1", "caption2"]
    assert [store.captions(i) for i in range(3)] == [[text] for text in texts]
    assert torch.equal(store.read_rows("caption_feats", [2, 0, 1]), feats[[2, 0, 1]])
    build_store(tmp_path / "images", CAPTIONS)
    assert FeatureStore(tmp_path / "images").has_images
    assert is_caption_store(tmp_path / "store")
    assert not is_caption_store(tmp_path / "images")
    assert not is_caption_store(tmp_path)
    for read, what in (
        (lambda: store.global_feats(0), "global_feats"),
        (lambda: store.patch_feats(0), "patch_feats"),
        (lambda: store.clip_scores, "clip_scores"),
    ):
        with pytest.raises(ValueError, match=f"{what} needs images, but .*store was made from cap"):
            read()


def test_captions_of_a_shard_need_unique_ids_and_one_row_each(tmp_path):
    folder = ShardFolder.open_for_write(tmp_path, FORMAT, {"images": False}, plan(1))
    dog, cat = Caption("1", "1", "a dog"), Caption("2", "2", "a cat")
    with pytest.raises(ValueError, match=r"caption ids of .* must be unique, but '1' is repeated"):
        write_caption_shard(folder, plan(1)[0], [dog, dog], torch.ones(2, 5))
    with pytest.raises(ValueError, match="got 2 captions and 3 caption_feats"):
        write_caption_shard(folder, plan(1)[0], [dog, cat], torch.ones(3, 5))
