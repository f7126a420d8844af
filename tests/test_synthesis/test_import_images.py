"""Parquet files of the published layout, written by the tests themselves."""

import io
import json
import random
import sys
import tarfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pcm_plugin.errors import UserError
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.image_shards import ImageShardReader
from pcm_plugin.synthesis.ranks import Rank
from pcm_plugin.synthesis.released.import_images import ImportImagesSettings, import_images
from tests.test_tools.commands import run, start

# As the `datasets` library writes it into the schema.
FEATURES = {"image": {"_type": "Image"}, "text": {"dtype": "string", "_type": "Value"}}
HUGGING_FACE = {b"huggingface": json.dumps({"info": {"features": FEATURES}}).encode()}
TEXT = pa.string()
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def encoded(seed, kind="PNG", size=(12, 10)):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind)
    return data.getvalue()


def rows(count, first=0):
    kinds = ("PNG", "JPEG", "WEBP")
    return [
        (encoded(i, kinds[i % 3]), f"a dog  number {i % 5}") for i in range(first, first + count)
    ]


def write(path, content, image_type=IMAGE, text_type=TEXT, group=4, names=("image", "text")):
    path.parent.mkdir(parents=True, exist_ok=True)
    images, texts = zip(*content, strict=True) if content else ((), ())
    if pa.types.is_struct(image_type):
        images = [data if data is None else {"bytes": data, "path": "x.png"} for data in images]
    table = pa.table([pa.array(images, image_type), pa.array(texts, text_type)], list(names))
    pq.write_table(table.replace_schema_metadata(HUGGING_FACE), path, row_group_size=group)


@pytest.fixture
def published(tmp_path):
    """23 rows in three files of several row groups."""
    content = rows(23)
    for index, (first, last) in enumerate([(0, 9), (9, 10), (10, 23)]):
        name = f"train-{index:05d}-of-00003.parquet"
        write(tmp_path / "MSCOCO-SD" / name, content[first:last])
    return tmp_path / "MSCOCO-SD"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*")}


def entries(folder):
    """(name, image bytes, facts) of all images in their order."""
    found = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            files = [(member.name, tar.extractfile(member).read()) for member in tar]
        for (name, data), (_, facts) in zip(files[::2], files[1::2], strict=True):
            found.append((name, data, json.loads(facts)))
    return found


@pytest.mark.parametrize("image_type", [IMAGE, pa.binary(), pa.large_binary()])
@pytest.mark.parametrize("text_type", [pa.string(), pa.large_string(), "dictionary"])
@pytest.mark.parametrize("group", [1, 4, 100])
def test_images_are_copied_and_numbered_over_all_files(tmp_path, image_type, text_type, group):
    content = rows(14)
    if text_type == "dictionary":
        text_type = pa.dictionary(pa.int8(), pa.string())
    write(tmp_path / "in" / "part-10.parquet", content[9:], image_type, text_type, group)
    write(tmp_path / "in" / "part-2.parquet", content[:9], image_type, text_type, group)
    settings = ImportImagesSettings(shard_size=5)
    folder = import_images([tmp_path / "in"], settings, tmp_path / "out")
    assert [record["count"] for record in folder.shards.values()] == [5, 5, 4]
    found = entries(tmp_path / "out")
    assert [data for _, data, _ in found] == [data for data, _ in content]
    assert [name for name, _, _ in found[:4]] == [
        *("00000000.png", "00000001.jpg", "00000002.webp", "00000003.png")
    ]
    for number, (_, _, facts) in enumerate(found):
        assert facts["id"] == facts["image_id"] == facts["caption_id"] == str(number)
        assert facts["caption"] == f"a dog number {number % 5}"
    assert [found[i][2]["source"] for i in (8, 9)] == ["part-2.parquet#8", "part-10.parquet#0"]
    lines = (tmp_path / "out" / "captions.jsonl").read_text().splitlines()
    assert [json.loads(line)["caption"] for line in lines] == [f["caption"] for _, _, f in found]
    archive = ImageShardReader(tmp_path / "out")
    assert archive.read("13").size == (12, 10)


@pytest.mark.parametrize("processes", [1, 3])
def test_killed_at_any_moment_it_ends_with_the_same_bytes(tmp_path, processes):
    content = [(encoded(i, size=(300, 300)), f"dog {i}") for i in range(24)]
    write(tmp_path / "in" / "a.parquet", content[:11])
    write(tmp_path / "in" / "b.parquet", content[11:])
    args, log = [tmp_path / "in", "--shard-size", 2, "--out"], tmp_path / "log"
    assert run("import-images", *args, tmp_path / "whole", log=log).code == 0
    moments, killed = random.Random(processes), tmp_path / "killed"
    several, interrupted = dict(log=log, processes=processes, launcher=False), 0
    for done in (0, 3, 6, 9):
        children = start("import-images", *args, killed, **several)
        while len([*killed.glob("*.tar")]) < done and any(c.exitcode is None for c in children):
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.03))
        for child in children:
            child.kill()
        for child in children:
            child.join()
        assert {child.exitcode for child in children} <= {0, -9}, log.read_text()
        interrupted += 0 < len([*killed.glob("*.tar")]) < 12
    assert interrupted
    result = run("import-images", *args, killed, **several)
    assert result.code == 0, result.output
    assert "24 images in 12 shards" in result.output
    assert contents(killed) == contents(tmp_path / "whole")


def test_a_shard_in_the_middle_is_made_again(tmp_path, published):
    settings = ImportImagesSettings(shard_size=2)
    import_images([published], settings, tmp_path / "out")
    before = contents(tmp_path / "out")
    for name in ("shard-00003.tar", "shard-00007.tar", "captions.jsonl"):
        (tmp_path / "out" / name).unlink()
    import_images([published], settings, tmp_path / "out", rank=Rank(0, 2))
    assert contents(tmp_path / "out") == before


def test_a_trial_of_the_first_rows_grows_into_the_whole(tmp_path, published):
    settings = ImportImagesSettings(shard_size=4)
    import_images([published], settings, tmp_path / "whole")
    import_images([published], settings, tmp_path / "out", limit=6)
    assert len(entries(tmp_path / "out")) == 6
    import_images([published], settings, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    with pytest.raises(ValueError, match="at most the 2 planned shards, got 6"):
        import_images([published], settings, tmp_path / "out", limit=6)


def test_changed_and_missing_files_are_refused(tmp_path, published):
    settings = ImportImagesSettings(shard_size=4)
    import_images([published], settings, tmp_path / "out")
    before = contents(tmp_path / "out")
    last = published / "train-00002-of-00003.parquet"
    content = rows(13, first=10)
    # Another image of as many bytes, in a file whose footer is the same.
    other = io.BytesIO()
    red, blue = Image.new("RGB", (12, 10), (200, 0, 0)), Image.new("RGB", (12, 10), (0, 0, 200))
    red.save(other, "BMP")
    content[6] = (other.getvalue(), content[6][1])
    write(last, content)
    with pytest.raises(ValueError, match=r"\(train-00002-of-00003.parquet was changed\)"):
        import_images([published], settings, tmp_path / "out")
    import_images([published], settings, tmp_path / "red")
    other = io.BytesIO()
    blue.save(other, "BMP")
    content[6] = (other.getvalue(), content[6][1])
    write(last, content)
    with pytest.raises(ValueError, match=r"\(train-00002-of-00003.parquet was changed\)"):
        import_images([published], settings, tmp_path / "red")
    last.unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the 3 .* missing, the first is train-00002"):
        import_images([published], settings, tmp_path / "out")
    with pytest.raises(ValueError, match=r"\(train-00002-of-00003.parquet is missing now\)"):
        import_images([published], settings, tmp_path / "out", partial=True)
    assert contents(tmp_path / "out") == before
    folder = import_images([published], settings, tmp_path / "part", partial=True)
    assert sum(record["count"] for record in folder.shards.values()) == 10


def test_invalid_rows_stop_or_are_counted(tmp_path):
    content = rows(10)
    content[1] = (content[1][0][:200], "cut")
    content[3] = (None, "no image")
    content[4] = (b"<html>", "no image either")
    content[6] = (content[6][0], None)
    content[7] = (content[7][0], " \n")
    write(tmp_path / "in" / "a.parquet", content[:2])
    write(tmp_path / "in" / "b.parquet", content[2:])
    args = [tmp_path / "in", "--out", tmp_path / "out", "--shard-size", 3]
    log = tmp_path / "log"
    for allowed, place in ((0, "a.parquet#1: "), (1, "b.parquet#1: no image bytes"), (4, "b")):
        result = run("import-images", *args, "--max-invalid", allowed, log=log)
        assert result.code == 1
        assert place in result.output
        assert f"more than --max-invalid {allowed};" in result.output
        assert not (tmp_path / "out" / "captions.jsonl").exists()
    result = run("import-images", *args, "--max-invalid", 5, log=log)
    assert result.code == 0, result.output
    assert "5 images in 4 shards" in result.output
    assert "5 skipped:" in result.output
    for place, reason in (
        ("a.parquet#1", "cannot be decoded"),
        ("b.parquet#2", "a web page, so the download failed"),
        ("b.parquet#4", "no caption"),
        ("b.parquet#5", "its caption is blank"),
    ):
        (line,) = [line for line in result.output.splitlines() if line.startswith(f"  {place}:")]
        assert reason in line
    assert [facts["id"] for _, _, facts in entries(tmp_path / "out")] == [*"02589"]
    lines = (tmp_path / "out" / "captions.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [*"02589"]
    result = run("import-images", *args, "--max-invalid", 4, log=log)
    assert result.code == 1, result.output


def test_captions_that_are_not_utf8_are_invalid(tmp_path):
    good = encoded(0)
    texts = pa.Array.from_buffers(
        pa.string(), 2, pa.array([b"caf\xe9", b"a dog"], pa.binary()).buffers()
    )
    images = pa.array([{"bytes": good, "path": None}] * 2, IMAGE)
    pq.write_table(pa.table({"image": images, "text": texts}), tmp_path / "a.parquet")
    settings = ImportImagesSettings()
    with pytest.raises(
        ValueError, match=r"a.parquet#0: its caption is not UTF-8\. Invalid rows so far: 1,"
    ):
        import_images([tmp_path / "a.parquet"], settings, tmp_path / "out")
    import_images([tmp_path / "a.parquet"], settings, tmp_path / "out", max_invalid=1)
    assert [facts["caption"] for _, _, facts in entries(tmp_path / "out")] == ["a dog"]


def test_wrong_files_are_refused(tmp_path, published):
    def message(*paths, **options):
        columns = options.pop("columns", {})
        with pytest.raises((ValueError, OSError)) as error:
            import_images(paths, ImportImagesSettings(**columns), tmp_path / "out", **options)
        assert not list(tmp_path.glob("out/shard-*"))
        return str(error.value)

    assert "no file or folder at" in message(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert message(tmp_path / "empty").endswith("no .parquet files in " + str(tmp_path / "empty"))
    assert f"there are some in {published}: pass one" in message(tmp_path)
    first = published / "train-00000-of-00003.parquet"
    assert "2 of the 3 Parquet files are missing, the first is train-00001-of" in message(first)
    other = tmp_path / "other" / first.name
    write(other, rows(1))
    assert "have the same name" in message(published, other)
    write(tmp_path / "other" / "test-00000-of-00001.parquet", rows(1))
    assert "must be of one set, got several (test-*-of-00001, train-*-of-00003)" in message(
        tmp_path / "other"
    )

    columns = {"image_column": "picture"}
    assert "has no column 'picture', only ['image', 'text']: name it with --image-column" in (
        message(published, columns=columns)
    )
    write(tmp_path / "swapped.parquet", rows(2), names=("text", "image"))
    assert "column 'image' must be of encoded images" in message(tmp_path / "swapped.parquet")
    write(tmp_path / "lists.parquet", [(encoded(0), ["a", "b"])], text_type=pa.list_(pa.string()))
    assert "column 'text' must be of strings, got list" in message(tmp_path / "lists.parquet")
    write(tmp_path / "nothing.parquet", [])
    assert "no rows in" in message(tmp_path / "nothing.parquet")

    cut = tmp_path / "cut.parquet"
    cut.write_bytes(first.read_bytes()[:-100])
    assert f"{cut} is not a complete Parquet file" in message(cut)
    cut.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    assert f"{cut} is a Git LFS pointer" in message(cut)
    cut.write_bytes(b"")
    assert f"{cut} is not a complete Parquet file" in message(cut)
    data = bytearray((published / "train-00002-of-00003.parquet").read_bytes())
    data[300:2500] = bytes(2200)
    cut.write_bytes(data)
    assert "cut.parquet" in message(cut)
    for options in ({"limit": 0}, {"max_invalid": -1}, {"columns": {"shard_size": 0}}):
        name = next(iter(options.get("columns", options)))
        assert f"{name} must be at least" in message(published, **options)


def test_without_pyarrow_the_error_says_what_to_install(tmp_path, published, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"needs pyarrow .*: pip install pyarrow"):
        import_images([published], ImportImagesSettings(), tmp_path / "out")


def test_other_settings_are_refused(tmp_path, published):
    import_images([published], ImportImagesSettings(shard_size=4), tmp_path / "out")
    with pytest.raises(ValueError, match=r"settings \(shard_size: 4 there, 5 now\)"):
        import_images([published], ImportImagesSettings(shard_size=5), tmp_path / "out")


def test_from_parquet_to_a_training(tmp_path, published):
    """Import, extract with the toy CLIP, build words and concepts, train one epoch."""
    clip = "local-dir:pcm_plugin/toyworld/assets/clip"
    log, data = tmp_path / "log", tmp_path / "data"

    def step(tool, *args):
        result = run(tool, *args, log=log)
        assert result.code == 0, result.output
        return result.output

    step("import-images", published, "--out", data / "synthetic", "--shard-size", 10)
    step("extract", data / "synthetic", "--model", clip, "--out", data / "store")
    store = FeatureStore(data / "store")
    assert store.image_ids == [str(number) for number in range(23)]
    assert [store.caption(j) for j in (0, 6, 22)] == [f"a dog number {j}" for j in (0, 1, 2)]
    captions = data / "synthetic" / "captions.jsonl"
    step("build-vocabulary", captions, "--min-count", 1, "--out", data / "vocabulary.txt")
    (data / "words.txt").write_text("dog\nnumber\n")
    concepts = data / "concepts.safetensors"
    step("build-concepts", data / "words.txt", "--model", clip, "--out", concepts)
    step(
        *("train", "configs/pcm_toy.py", "--work-dir", tmp_path / "work", "--cfg-options"),
        *(f"train_dataloader.dataset.store={data}/store", "train_cfg.max_epochs=1"),
        *("val_dataloader=None", "val_cfg=None", "val_evaluator=None"),
        *(
            f"model.vocabulary={data}/vocabulary.txt",
            f"model.neck.concepts={concepts}",
        ),
        *(f"model.neck.clip_head={data}/store/clip_head.safetensors", "model.neck.top_concepts=2"),
    )
    assert list((tmp_path / "work").glob("*epoch_1.pth"))
