"""One wrong input of each kind, through the commands: a clear error, and nothing lost."""

import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.vocabulary import Vocabulary
from tests.builders import build_clip, build_pipeline
from tests.test_tools.commands import run

CAPTIONS = ["a red dog", "一只狗 runs on grass", "a cat \U0001f408", "the car", "a tree"]


class Harmful:
    def __reduce__(self):
        return (os.system, ("touch executed",))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return str(build_pipeline(folder / "pipeline")), build_clip(folder / "clip")


def command(tmp_path, tool, *args, **options):
    result = run(tool, *args, log=tmp_path / "log", **options)
    assert "Traceback" not in result.output
    return result


def generate(tmp_path, models, *args, captions="captions.txt", **options):
    wants = ["--pipeline", models[0], "--steps", 1, "--shard-size", 2, "--format", "png"]
    out = ["--out", tmp_path / "images", "--device", "cpu"]
    return command(tmp_path, "generate", tmp_path / captions, *wants, *out, *args, **options)


def extract(tmp_path, models, *args, **options):
    wants = ["--model", models[1], "--out", tmp_path / "store", "--device", "cpu"]
    return command(tmp_path, "extract", *args, *wants, **options)


@pytest.fixture
def images(tmp_path, models):
    (tmp_path / "captions.txt").write_text("\n".join(CAPTIONS))
    assert generate(tmp_path, models).code == 0
    return tmp_path / "images"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("captions.txt", "", "no captions in"),
        ("captions.csv", "text,id\na dog,1\n", "no column 'caption' in the first line"),
        ("captions.txt", "a dog\n" + "x" * 10_000, ":2: a caption of 10,000 characters"),
        ("captions.txt", b"a dog\n\xff\xfe", ":2: not UTF-8"),
    ],
)
def test_captions(tmp_path, models, name, content, message):
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(data)
    result = generate(tmp_path, models, captions=name)
    assert result.code == 1
    assert message in result.output
    assert not (tmp_path / "images").exists()


def test_emoji_and_chinese_go_all_the_way(tmp_path, models, images):
    assert extract(tmp_path, models, images).code == 0
    store = FeatureStore(tmp_path / "store")
    assert [store.captions(i)[0] for i in range(5)] == CAPTIONS


def test_a_tar_cut_in_half(tmp_path, models, images):
    tar = images / "shard-00001.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[: len(whole) // 2])
    result = extract(tmp_path, models, images)
    assert result.code == 1
    assert "missing or cut: shard-00001.tar" in result.output
    assert "run the command that made it again" in result.output
    assert generate(tmp_path, models).code == 0
    assert tar.read_bytes() == whole
    assert extract(tmp_path, models, images).code == 0


def test_a_truncated_jpg_is_skipped(tmp_path, models):
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    for i in range(3):
        Image.fromarray(pixels[i]).save(folder / f"{i}.jpg")
    (folder / "1.jpg").write_bytes((folder / "1.jpg").read_bytes()[:700])
    result = extract(tmp_path, models, folder, "--captions", "none")
    assert result.code == 0
    assert "1 skipped:\n  1.jpg: it cannot be decoded: image file is truncated" in result.output
    assert FeatureStore(tmp_path / "store").image_ids == ["0", "2"]


def test_a_pickle_that_tries_to_execute_code(tmp_path, models):
    (tmp_path / "annotations.pkl").write_bytes(pickle.dumps([Harmful()]))
    Vocabulary(["a"]).to_file(tmp_path / "vocabulary.txt")
    (tmp_path / "photos").mkdir()
    words = ["--vocabulary", tmp_path / "vocabulary.txt"]
    captions = ["--captions", tmp_path / "annotations.pkl"]
    result = extract(tmp_path, models, tmp_path / "photos", *captions, *words)
    assert result.code == 1
    assert "is not a released annotation list: it asks for posix.system" in result.output
    assert not os.path.exists("executed")


def test_a_store_of_another_clip(tmp_path, models, images):
    assert extract(tmp_path, models, images).code == 0
    other = build_clip(tmp_path / "other", seed=1)
    result = extract(tmp_path, (models[0], other), images)
    assert result.code == 1
    assert "was made with other settings (model: 'clip (sha256" in result.output
    assert len(FeatureStore(tmp_path / "store")) == 5


def files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name[0] != "."}


def test_a_full_disk(tmp_path, models, images):
    """What does not fit is said with its name; what is finished stays, and the rest comes later."""
    whole = files(images)
    for name in ("shard-00002.tar", "manifest.json"):
        (images / name).unlink()
    result = generate(tmp_path, models, largest_file=5000)
    assert result.code == 1
    assert f"'{images}/shard-00000.tar'" in result.output
    assert "File too large" in result.output
    assert not [name for name in files(images) if name.endswith("2.tar")]
    assert generate(tmp_path, models).code == 0
    assert files(images) == whole

    assert extract(tmp_path, models, images).code == 0
    store = files(tmp_path / "store")
    (tmp_path / "store" / "shard-00001.safetensors").unlink()
    result = extract(tmp_path, models, images, largest_file=1500)
    assert result.code == 1
    assert "File too large" in result.output
    assert str(tmp_path / "store") in result.output
    with pytest.raises(ValueError, match=r"has 2 of 3 shards|missing or cut"):
        FeatureStore(tmp_path / "store")
    assert extract(tmp_path, models, images).code == 0
    assert files(tmp_path / "store") == store


def test_a_folder_without_write_permission(tmp_path, models):
    (tmp_path / "captions.txt").write_text("\n".join(CAPTIONS))
    locked = tmp_path / "images"
    locked.mkdir()
    locked.chmod(0o500)
    # Permissions mean nothing to root; the kernel's own file system lets nobody make a folder.
    out = Path("/sys/images") if os.geteuid() == 0 else locked
    result = generate(tmp_path, models, "--out", out)
    assert result.code == 1
    assert str(out) in result.output
    assert "ermi" in result.output


def test_an_archive_with_something_else_in_it(tmp_path, models, images):
    tar = images / "shard-00000.tar"
    with tarfile.open(tar, "a") as archive:
        archive.add(tmp_path / "captions.txt", "captions.txt")
    result = extract(tmp_path, models, images)
    assert result.code == 1
    assert "captions.txt is not followed by captions.json" in result.output
