import errno
import io
import os
import sys
import tarfile
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from pcm_plugin.commands.extract import main
from pcm_plugin.datasets.synth_caption import SynthCaptionDataset
from pcm_plugin.formats.coco import write_coco_captions
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.image_shards import FORMAT, image_key, write_image_shard
from pcm_plugin.formats.shards import Shard, ShardFolder, shard_name
from pcm_plugin.models import OpenCLIPBackbone
from pcm_plugin.synthesis.extract.extract_features import extract_features
from pcm_plugin.synthesis.extract.open_source import open_source
from pcm_plugin.synthesis.extract.settings import ExtractSettings
from pcm_plugin.synthesis.pipeline.stores import export
from pcm_plugin.synthesis.refine.pairs import refine_pairs
from pcm_plugin.synthesis.refine.settings import RefineSettings
from tests.builders import build_clip
from tests.test_tools.commands import run as run_tool

CAPTIONS = [["a red dog", "the dog"], [], ["a car"], ["the cat", "a cat on a tree", "the tree"]]
SETTINGS = {"dtype": "float32"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return build_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture
def images(tmp_path):
    """Four noise images with a COCO captions file."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    entries = [(10 + i, f"{i}.png", captions) for i, captions in enumerate(CAPTIONS)]
    write_coco_captions(tmp_path / "captions.json", entries)
    return folder


def run(images, clip, out, shard_size=3, batch_size=2, skip_missing=False, **settings):
    source = open_source(images, images.parent / "captions.json", shard_size)
    settings = ExtractSettings(clip, **{**SETTINGS, **settings})
    return extract_features(source, settings, out, batch_size, "cpu", skip_missing=skip_missing)


def contents(folder):
    return {p.name: p.read_bytes() for p in Path(folder).iterdir() if p.name[0] != "."}


@pytest.mark.parametrize("template", ["{}", "a photo of {}"])
def test_store_holds_what_open_clip_computes(tmp_path, images, clip, template):
    run(images, clip, tmp_path / "store", caption_template=template)
    store = FeatureStore(tmp_path / "store")
    assert store.image_ids == ["10", "11", "12", "13"]
    assert [store.captions(i) for i in range(4)] == CAPTIONS
    assert store.record(2)["file_name"] == "2.png"
    assert (store.num_patches, store.patch_dim, store.clip_dim) == (16, 16, 8)

    model, _, preprocess = open_clip.create_model_and_transforms(clip)
    model.eval()
    tokenizer = open_clip.get_tokenizer(clip)
    j = 0
    for i, captions in enumerate(CAPTIONS):
        pixels = preprocess(Image.open(images / f"{i}.png"))[None]
        with torch.no_grad():
            image = F.normalize(model.encode_image(pixels), dim=-1)[0]
        torch.testing.assert_close(store.global_feats(i), image)
        for caption in captions:
            with torch.no_grad():
                text = model.encode_text(tokenizer([template.replace("{}", caption)]))
            text = F.normalize(text, dim=-1)[0]
            torch.testing.assert_close(store.caption_feats(j), text)
            expected = pytest.approx(float(2.5 * text @ image), abs=1e-5)
            assert store.clip_scores[j] == expected
            j += 1


def test_patches_and_head_lead_to_the_global_feature(tmp_path, images, tmp_path_factory):
    """With average pooling the global feature is the mean patch, seen through the head."""
    clip = build_clip(tmp_path_factory.mktemp("models") / "avg", pool_type="avg")
    run(images, clip, tmp_path / "store")
    store = FeatureStore(tmp_path / "store")
    head = load_file(store.clip_head)
    for i in range(4):
        patches = store.patch_feats(i)
        seen = F.layer_norm(patches, (16,), head["ln_post.weight"], head["ln_post.bias"])
        torch.testing.assert_close(
            F.normalize(seen.mean(0) @ head["proj"], dim=0), store.global_feats(i)
        )


def test_patches_are_in_row_major_order(tmp_path, clip):
    (tmp_path / "images").mkdir()
    cells = [None, (0, 0), (0, 2), (1, 3), (3, 1)]
    for i, cell in enumerate(cells):
        pixels = np.full((64, 64, 3), 90, np.uint8)
        if cell:
            row, column = cell
            pixels[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 255
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    entries = [(i, f"{i}.png", ["a dog"]) for i in range(len(cells))]
    write_coco_captions(tmp_path / "captions.json", entries)
    run(tmp_path / "images", clip, tmp_path / "store")
    store = FeatureStore(tmp_path / "store")
    for i, cell in enumerate(cells[1:], 1):
        changed = (store.patch_feats(i) - store.patch_feats(0)).norm(dim=1)
        assert changed.argmax() == 4 * cell[0] + cell[1]


def test_pool_averages_neighbours_and_half_precision_rounds(tmp_path, images, clip):
    run(images, clip, tmp_path / "full")
    run(images, clip, tmp_path / "pooled", pool=2, dtype="float16")
    full, pooled = FeatureStore(tmp_path / "full"), FeatureStore(tmp_path / "pooled")
    grid = full.patch_feats(0).view(2, 2, 2, 2, 16).mean((1, 3)).view(4, 16)
    torch.testing.assert_close(pooled.patch_feats(0), grid, atol=2e-3, rtol=2e-3)
    assert torch.equal(pooled.patch_feats(0), pooled.patch_feats(0).half().float())


def test_a_store_without_patches_is_the_same_but_for_them(tmp_path, images, clip):
    run(images, clip, tmp_path / "whole")
    captions = ["--captions", tmp_path / "captions.json", "--dtype", "float32"]
    args = [images, *captions, "--model", clip, "--shard-size", 3, "--batch-size", 2]
    args += ["--no-patches", "--device", "cpu", "--out", tmp_path / "store"]
    result = run_tool("extract", *args, log=tmp_path / "log")
    assert result.code == 0, result.output
    whole, store = FeatureStore(tmp_path / "whole"), FeatureStore(tmp_path / "store")
    assert (store.num_patches, store.settings["patches"]) == (0, False)
    assert "patches" not in whole.settings
    assert store.patch_feats(3).shape == (0, 16)
    for key, count in (("global_feats", 4), ("caption_feats", 6)):
        assert torch.equal(store.read_rows(key, range(count)), whole.read_rows(key, range(count)))
    assert np.array_equal(store.clip_scores, whole.clip_scores)
    data = SynthCaptionDataset(tmp_path / "store", features="global")
    assert torch.equal(data[1]["global_feats"], whole.global_feats(0))
    with pytest.raises(
        ValueError, match=r"has no patch features \(it was made with pcm extract --no-patches"
    ):
        SynthCaptionDataset(tmp_path / "store")
    with pytest.raises(ValueError, match="has no patch features, which the released code reads"):
        export(tmp_path / "store", tmp_path / "npz")
    with pytest.raises(ValueError, match=r"patches: (None|False) .* (None|False)"):
        run(images, clip, tmp_path / "store")
    settings = RefineSettings(num_images=3, keep=1.0)
    pairs = [
        refine_pairs(tmp_path / "whole", settings, out, device="cpu", assign_store=assigning)
        for out, assigning in ((tmp_path / "a", tmp_path / "store"), (tmp_path / "b", None))
    ]
    assert np.array_equal(pairs[0].image, pairs[1].image)


def test_restarts_make_the_same_store(tmp_path, images, clip, monkeypatch):
    run(images, clip, tmp_path / "whole", shard_size=1)
    written = []

    def dies(*args, **kwargs):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(args[1])
        write_feature_shard(*args, **kwargs)

    from pcm_plugin.synthesis.extract.extract_features import write_feature_shard

    with monkeypatch.context() as patch:
        patch.setattr("pcm_plugin.synthesis.extract.extract_features.write_feature_shard", dies)
        with pytest.raises(KeyboardInterrupt):
            run(images, clip, tmp_path / "killed", shard_size=1)
    with pytest.raises(ValueError, match="has 2 of 4 shards"):
        FeatureStore(tmp_path / "killed")
    run(images, clip, tmp_path / "killed", shard_size=1)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")

    with monkeypatch.context() as patch:
        patch.setattr("pcm_plugin.synthesis.extract.settings.OpenCLIPBackbone", None)
        run(images, clip, tmp_path / "whole", shard_size=1)

    # Files that were lost or cut since are made again.
    (tmp_path / "killed" / "shard-00001.jsonl").unlink()
    (tmp_path / "killed" / "shard-00002.safetensors").write_bytes(b"cut")
    run(images, clip, tmp_path / "killed", shard_size=1)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_missing_or_damaged_head_is_written_again(tmp_path, images, clip):
    run(images, clip, tmp_path / "store")
    head = tmp_path / "store" / "clip_head.safetensors"
    good = head.read_bytes()
    head.unlink()
    with pytest.raises(ValueError, match=r"missing or cut: clip_head\.safetensors"):
        FeatureStore(tmp_path / "store")
    run(images, clip, tmp_path / "store")
    assert head.read_bytes() == good
    head.write_bytes(good[:-1] + b"?")
    run(images, clip, tmp_path / "store")
    assert head.read_bytes() == good


def test_broken_images_are_listed_and_skipped(tmp_path, images, clip, caplog):
    (images / "2.png").write_bytes((images / "2.png").read_bytes()[:300])
    (images / "0.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"no image .*0.png: .*--skip-missing"):
        run(images, clip, tmp_path / "store", shard_size=4)
    folder = run(images, clip, tmp_path / "store", shard_size=4, skip_missing=True)
    store = FeatureStore(tmp_path / "store")
    assert store.image_ids == ["11", "13"]
    assert [store.captions(i) for i in range(2)] == [CAPTIONS[1], CAPTIONS[3]]
    skipped = folder.shards["shard-00000"]["skipped"]
    assert list(skipped) == ["0.png", "2.png"]
    assert skipped["0.png"] == "missing"
    assert "skipped 2.png: " in caplog.text
    (images / "0.png").touch()
    for file in images.iterdir():
        file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no image of shard-00000 can be read; 0.png"):
        run(images, clip, tmp_path / "none")


def test_other_settings_captions_or_weights_are_refused(tmp_path, images, clip):
    run(images, clip, tmp_path / "store")
    with pytest.raises(ValueError, match=r"settings \(pool: 1 there, 2 now\)"):
        run(images, clip, tmp_path / "store", pool=2)
    other = build_clip(tmp_path / "clip", seed=1)
    with pytest.raises(ValueError, match=r"settings \(model: 'clip \(sha256"):
        run(images, other, tmp_path / "store")
    write_coco_captions(images.parent / "captions.json", [(1, "1.png", ["a tree"])])
    with pytest.raises(ValueError, match=r"settings \(source: .*captions"):
        run(images, clip, tmp_path / "store")


def test_a_failed_run_does_not_block_the_next(tmp_path, images, clip):
    good = (images / "0.png").read_bytes()
    for file in images.iterdir():
        file.write_bytes(b"no image")
    with pytest.raises(ValueError, match="no image of shard-00000 can"):
        run(images, build_clip(tmp_path / "other", seed=1), tmp_path / "store")
    for file in images.iterdir():
        file.write_bytes(good)
    run(images, clip, tmp_path / "store")
    run(images, clip, tmp_path / "fresh")
    for file in ("clip_head.safetensors", "shard-00000.safetensors"):
        assert (tmp_path / "store" / file).read_bytes() == (tmp_path / "fresh" / file).read_bytes()


def write_image_shards(folder, count, shard_size=2):
    """Shards as generate writes them, of flat colors."""
    plan = [
        Shard(shard_name(s), min(shard_size, count - s * shard_size), "x")
        for s in range(-(-count // shard_size))
    ]
    shards = ShardFolder.open_for_write(folder, FORMAT, {"made": "by hand"}, plan)
    for s in range(-(-count // shard_size)):
        indices = range(s * shard_size, min(count, (s + 1) * shard_size))
        with write_image_shard(folder, shard_name(s)) as writer:
            for i in indices:
                png = io.BytesIO()
                Image.new("RGB", (16, 16), (i * 40, 0, 255 - i * 40)).save(png, "PNG")
                facts = {"id": f"c{i}", "caption": f"a dog {i}", "image_id": "x", "seed": 1}
                writer.append(image_key(i), "png", png.getvalue(), facts)
        shards.commit(plan[s], [f"shard-{s:05d}.tar"], len(indices))


def test_generated_shards_become_a_store(tmp_path, clip, monkeypatch, capsys):
    write_image_shards(tmp_path / "images", 3)
    command = f"extract {tmp_path / 'images'} --model {clip} --out {tmp_path / 'store'}"
    monkeypatch.setattr(sys, "argv", [*command.split(), "--device", "cpu", "--batch-size", "1"])
    main()
    assert "3 images with 3 captions in 2 shards" in capsys.readouterr().out
    store = FeatureStore(tmp_path / "store")
    assert store.image_ids == ["c0", "c1", "c2"]
    assert store.captions(2) == ["a dog 2"]
    assert not torch.equal(store.patch_feats(0), store.patch_feats(1))
    first = (tmp_path / "store" / "shard-00000.safetensors").stat().st_mtime_ns

    write_image_shards(tmp_path / "images", 4)
    main()
    assert FeatureStore(tmp_path / "store").image_ids == ["c0", "c1", "c2", "c3"]
    assert (tmp_path / "store" / "shard-00000.safetensors").stat().st_mtime_ns == first


def test_a_damaged_archive_is_named(tmp_path, clip):
    write_image_shards(tmp_path / "images", 3)
    tar = tmp_path / "images" / "shard-00000.tar"
    with tarfile.open(tar) as file:
        second = file.getmembers()[2].offset
    data = bytearray(tar.read_bytes())
    data[second : second + 512] = bytes(512)
    tar.write_bytes(data)
    with pytest.raises(ValueError, match=r"shard-00000.tar is not as it was .*1 of 2 images"):
        extract_features(
            open_source(tmp_path / "images", None, 1), ExtractSettings(clip), tmp_path / "store"
        )
    assert not ShardFolder(tmp_path / "store", "pcm-features").shards


def test_wrong_sources_are_named(tmp_path, images, clip):
    with pytest.raises(FileNotFoundError, match="no folder of images at"):
        open_source(tmp_path / "none", None, 10)
    with pytest.raises(ValueError, match="name their captions with --captions"):
        open_source(images, None, 10)
    write_image_shards(tmp_path / "shards", 3)
    with pytest.raises(ValueError, match="leave out --captions"):
        open_source(tmp_path / "shards", "captions.json", 10)
    tar = tmp_path / "shards" / "shard-00001.tar"
    tar.write_bytes(tar.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"missing or cut: shard-00001.tar"):
        open_source(tmp_path / "shards", None, 10)
    more = [Shard(f"shard-{s:05d}", 2, "x") for s in range(5)]
    ShardFolder.open_for_write(tmp_path / "shards", FORMAT, {"made": "by hand"}, more)
    with pytest.raises(ValueError, match=r"has 1 of 5 shards: run the command that"):
        open_source(tmp_path / "shards", None, 10)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        run(images, clip, tmp_path / "store", batch_size=0)
    for wrong in ({"dtype": "int8"}, {"caption_template": "a photo"}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must"):
            ExtractSettings(clip, **wrong)


def test_the_patch_mode_is_that_of_the_features(tmp_path, images, clip):
    run(images, clip, tmp_path / "plain")
    args = [images, "--captions", tmp_path / "captions.json", "--model", clip]
    args += ["--dtype", "float32", "--patch-mode", "sclip", "--device", "cpu"]
    result = run_tool("extract", *args, "--out", tmp_path / "sclip", log=tmp_path / "log")
    assert result.code == 0, result.output
    plain, store = FeatureStore(tmp_path / "plain"), FeatureStore(tmp_path / "sclip")
    assert "patch_mode" not in plain.settings
    assert store.settings["patch_mode"] == "sclip"
    backbone = OpenCLIPBackbone(clip, patch_mode="sclip")
    pixels = backbone.preprocess(Image.open(images / "0.png"))
    torch.testing.assert_close(store.patch_feats(0).float(), backbone(pixels[None])[0][0])
    assert torch.equal(store.global_feats(0), plain.global_feats(0))
    with pytest.raises(ValueError, match="patch_mode"):
        run(images, clip, tmp_path / "plain", patch_mode="maskclip")
    with pytest.raises(ValueError, match="`patch_mode` must be one of plain, maskclip, sclip"):
        ExtractSettings(clip, patch_mode="dense")


def test_a_folder_with_all_kinds_of_files(tmp_path, clip, caplog):
    """All supported suffixes, transparency, broken EXIF data, and names that are not UTF-8."""
    folder = tmp_path / "images"
    (folder / "x.png").mkdir(parents=True)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    image.save(folder / "a.png")
    image.save(folder / "b.png", exif=b"Exif\0\0\0\x08\0\x02\x01\x12\0\x03")
    white = Image.new("RGB", (16, 16), "white")
    white.save(folder / "c.avif", quality=100)
    hidden = image.copy()
    hidden.putalpha(0)
    hidden.save(folder / "d.png")
    white.save(folder / "e.jfif", "JPEG")
    (folder / "f.png").write_bytes((folder / "a.png").read_bytes()[:200])
    image.save(folder / "bad.png")
    (folder / "bad.png").rename(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png"))
    (folder / "notes.txt").write_text("no image")
    shards = extract_features(
        open_source(folder, "none", 10), ExtractSettings(clip, **SETTINGS), tmp_path / "store"
    )
    store = FeatureStore(tmp_path / "store")
    names = [store.record(i)["file_name"] for i in range(len(store))]
    assert names == ["a.png", "b.png", "c.avif", "d.png", "e.jfif"]
    feats = [store.global_feats(i) for i in range(5)]
    assert torch.equal(feats[0], feats[1])
    assert torch.equal(feats[3], feats[4])
    assert list(shards.shards["shard-00000"]["skipped"]) == ["f.png"]
    for part in (r"rename it): caf\xe9.png", "name of an image: x.png", "suffix: .txt 1"):
        assert part in caplog.text


def test_an_io_error_stops_the_run(tmp_path, images, clip, monkeypatch):
    def fails(self):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", fails)
    with pytest.raises(OSError, match="Input/output error"):
        run(images, clip, tmp_path / "store")
