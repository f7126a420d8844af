"""Image shards: what the writer writes, both readers read."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from pcm_plugin.formats.image_shards import (
    FORMAT,
    ImageShardReader,
    archive_name,
    image_key,
    open_image_shards,
    read_image_shard,
    write_image_shard,
)
from pcm_plugin.formats.shards import Shard, ShardFolder, shard_name


def png(color):
    data = io.BytesIO()
    Image.new("RGB", (4, 4), (color, 0, 0)).save(data, "PNG")
    return data.getvalue()


def write(folder, ids, format=FORMAT):
    """Write a folder of generated images in shards of two."""
    plan = [Shard(shard_name(n), 2, "") for n in range(len(ids) // 2)]
    shards = ShardFolder.open_for_write(folder, format, {}, plan)
    for n, shard in enumerate(plan):
        with write_image_shard(folder, shard.name) as writer:
            for i, image_id in enumerate(ids[2 * n : 2 * n + 2], start=2 * n):
                facts = {"id": image_id, "caption": f"the dog {i}"}
                writer.append(image_key(i), "png", png(i), facts)
        shards.commit(shard, [archive_name(shard.name)], 2)
    return folder


def test_both_readers_return_what_was_written(tmp_path):
    folder = open_image_shards(write(tmp_path, ["a", "b", "c", "d"]))
    found = [item for shard in folder.shards for item in read_image_shard(folder, shard)]
    assert [entry.name for entry, _ in found] == [f"0000000{i}.png" for i in range(4)]
    assert [data for _, data in found] == [png(i) for i in range(4)]
    assert found[3][0].facts == {"id": "d", "caption": "the dog 3"}
    reader = ImageShardReader(tmp_path)
    assert len(reader) == 4
    assert "d" in reader
    assert "e" not in reader
    for i, image_id in enumerate("abcd"):
        assert np.asarray(reader.read(image_id))[0, 0].tolist() == [i, 0, 0]


def test_equal_images_are_equal_bytes(tmp_path):
    archives = [write(tmp_path / name, ["a", "b"]) / "shard-00000.tar" for name in "xy"]
    assert archives[0].read_bytes() == archives[1].read_bytes()
    with tarfile.open(archives[0]) as tar:
        assert tar.getnames() == [
            f"0000000{i}.{suffix}" for i in (0, 1) for suffix in ("png", "json")
        ]


@pytest.mark.parametrize("ids", [["a", "b", "b", "c"], ["a", "a", "b", "c"]])
def test_repeated_ids_are_refused(tmp_path, ids):
    with pytest.raises(ValueError, match=r"must be unique, but '[ab]' is repeated"):
        ImageShardReader(write(tmp_path, ids))


@pytest.mark.parametrize(
    ("member", "match"),
    [
        (2, "1 of 2 images can be read"),
        (1, "00000000.png is not followed by 00000000.json"),
    ],
)
def test_a_damaged_header_is_named(tmp_path, member, match):
    path = write(tmp_path, ["a", "b"]) / "shard-00000.tar"
    with tarfile.open(path) as tar:
        offset = tar.getmembers()[member].offset
    data = bytearray(path.read_bytes())
    data[offset : offset + 512] = bytes(512)
    path.write_bytes(data)
    folder = open_image_shards(tmp_path)
    for read in (
        lambda: [*read_image_shard(folder, "shard-00000")],
        lambda: ImageShardReader(tmp_path),
    ):
        with pytest.raises(ValueError, match=f"shard-00000.tar is not as it was .*{match}"):
            read()


def test_other_folders_are_refused(tmp_path):
    write(tmp_path / "other", ["a", "b"], "pcm-features")
    with pytest.raises(
        ValueError, match="must hold 'pcm-images', got 'pcm-features': pass a folder"
    ):
        ImageShardReader(tmp_path / "other")
    folder = write(tmp_path / "half", ["a", "b"])
    ShardFolder.open_for_write(folder, FORMAT, {}, [Shard(shard_name(n), 2, "") for n in (0, 1)])
    with pytest.raises(ValueError, match="has 1 of 2 shards: run the command that made it again"):
        ImageShardReader(folder)
