"""From images to captions with CLIPs that are not plain Vision Transformers."""

import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from safetensors.torch import load_file

from pcm_plugin.apis import CaptionInferencer
from pcm_plugin.commands import build_concepts
from pcm_plugin.commands import extract as extract_tool
from pcm_plugin.commands.store import verify
from pcm_plugin.engine.checkpoints import load_local_checkpoint
from pcm_plugin.engine.config_files import find_config
from pcm_plugin.formats.clip_head import CLIP_HEAD
from pcm_plugin.formats.coco import write_coco_captions
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.vocabulary import Vocabulary
from pcm_plugin.models.captioner_file import load_captioner
from pcm_plugin.models.functional.patch_affinity import project_patches
from pcm_plugin.synthesis.pipeline.dataset_config import write_configs
from pcm_plugin.synthesis.pipeline.recipes import load_recipe
from pcm_plugin.synthesis.pipeline.stores import merge
from tests.builders import build_clip
from tests.conftest import TINY
from tests.test_tools.commands import run

CAPTIONS = [["a red dog runs", "the dog"], ["a car"], ["the cat", "a cat on a tree"], ["a house"]]
NECKS = {
    "eva": dict(patch_dim=16, clip_dim=8, num_patches=4, ln_post_eps=1e-6),
    "siglip": dict(patch_dim=16, clip_dim=16, num_patches=4),
}


def call(tool, monkeypatch, *args):
    """Run a tool in this process, whose timm knows the tests' towers."""
    monkeypatch.setattr(sys, "argv", [tool.__name__, *map(str, args)])
    tool.main()


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(len(CAPTIONS)):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    entries = [(10 + i, f"{i}.png", captions) for i, captions in enumerate(CAPTIONS)]
    write_coco_captions(tmp_path / "captions.json", entries)
    return folder


@pytest.mark.parametrize(("kind", "config"), [("eva", "eva02"), ("siglip", "siglip2")])
def test_from_images_to_captions(kind, config, images, tmp_path, monkeypatch):
    clip, store, log = (
        build_clip(tmp_path / "clip", kind=kind),
        tmp_path / "store",
        tmp_path / "log",
    )
    clip_args = ["--model", clip]
    extracting = [images, "--captions", tmp_path / "captions.json", *clip_args, "--pool", 2]
    extracting += ["--out", store, "--dtype", "float32", "--device", "cpu", "--shard-size", 2]
    call(extract_tool, monkeypatch, *extracting)
    before = {file.name: file.stat().st_mtime_ns for file in store.glob("*.safetensors")}
    with monkeypatch.context() as patch:  # a store that is finished needs no CLIP
        patch.setattr("pcm_plugin.synthesis.extract.settings.OpenCLIPBackbone", None)
        call(extract_tool, monkeypatch, *extracting)
    assert before == {file.name: file.stat().st_mtime_ns for file in store.glob("*.safetensors")}
    joint = kind == "siglip"
    assert FeatureStore(store).patches_in_joint_space == joint
    assert (store / CLIP_HEAD).is_file() != joint
    merge([store], tmp_path / "merged")
    assert FeatureStore(tmp_path / "merged").patches_in_joint_space == joint
    verify(tmp_path / "merged")

    words = tmp_path / "words.txt"
    words.write_text("dog\ncat\ncar\ntree\nhouse\nred\n")
    concepts = tmp_path / "concepts.safetensors"
    call(build_concepts, monkeypatch, words, *clip_args, "--out", concepts)
    texts = [text for own in CAPTIONS for text in own]
    Vocabulary.build(texts, min_count=1).to_file(tmp_path / "vocabulary.txt")

    leaf = find_config(f"pcm_coco_{config}")
    settings = TINY | {
        **{f"model.neck.{key}": value for key, value in NECKS[kind].items()},
        **{f"{loop}_dataloader.dataset.store": str(store) for loop in ("train", "val", "test")},
        "model.vocabulary": str(tmp_path / "vocabulary.txt"),
        "model.neck.concepts": str(concepts),
        "model.neck.clip_head": None if joint else str(store / CLIP_HEAD),
        "clip.model_name": clip,
        "clip.pretrained": None,
        "train_cfg.max_epochs": 2,
    }
    options = ["--cfg-options", *(f"{key}={value}" for key, value in settings.items())]
    result = run("train", leaf, "--work-dir", tmp_path / "run", *options, log=log)
    assert result.code == 0, result.output
    checkpoint = tmp_path / "run" / "epoch_2.pth"
    out = tmp_path / "captioner.safetensors"
    result = run("export", leaf, checkpoint, "--out", out, *options, log=log, launcher=False)
    assert result.code == 0, result.output
    assert any("clip_head.proj" in key for key in load_file(out)) != joint

    captioner = load_captioner(out)
    weights = load_local_checkpoint(str(checkpoint))["state_dict"]
    assert all(torch.equal(captioner.state_dict()[key], value) for key, value in weights.items())
    inferencer = CaptionInferencer(out, device="cpu", show_progress=False)
    seen = inferencer(images, return_datasamples=True)["predictions"]
    reader = FeatureStore(store)
    stored = captioner(
        patch_feats=torch.stack([reader.patch_feats(i) for i in range(4)]),
        global_feats=torch.stack([reader.global_feats(i) for i in range(4)]),
        mode="predict",
    )
    for one, other in zip(seen, stored, strict=True):
        assert one.pred_caption == other.pred_caption
        torch.testing.assert_close(one.pred_affinity, other.pred_affinity)
    # The same by a config with a checkpoint, and what was found is what the backbone says.
    cfg = Config.fromfile(leaf)
    cfg.merge_from_dict(settings)
    own = CaptionInferencer(cfg, checkpoint, "cpu", show_progress=False)
    again = own(images, return_datasamples=True)["predictions"]
    assert [s.pred_caption for s in again] == [s.pred_caption for s in seen]
    patches = reader.patch_feats(0)[None]
    if not joint:
        patches = project_patches(patches, *own.backbone.clip_head().values(), eps=1e-6)
    cosines = (
        torch.nn.functional.normalize(patches[0], dim=-1) @ own.model.neck.concept_bank.embeddings.T
    )
    torch.testing.assert_close(seen[0].pred_affinity, cosines[:, seen[0].pred_concept_ids])


def test_a_folder_of_such_features_trains_by_its_own_config(images, tmp_path, monkeypatch):
    clip = build_clip(tmp_path / "clip", kind="siglip")
    args = [images, "--captions", tmp_path / "captions.json", "--model", clip, "--device", "cpu"]
    call(extract_tool, monkeypatch, *args, "--out", tmp_path / "train_store")
    recipe = load_recipe("toy", {"extract.model": clip})
    write_configs(recipe, tmp_path, [])
    neck = Config.fromfile(tmp_path / "config.py").model.neck
    assert (neck.clip_dim, neck.num_patches) == (16, 16)
    assert (neck.patches_in_joint_space, neck.clip_head, neck.patch_dim) == (True, None, 16)


@pytest.mark.parametrize("joint", [True, False])
def test_features_that_the_neck_does_not_expect_are_refused(images, tmp_path, joint, monkeypatch):
    kind = {"kind": "siglip"} if joint else {"kind": "siglip", "timm_pool": "avg"}
    clip = build_clip(tmp_path / "clip", **kind)
    args = [images, "--captions", tmp_path / "captions.json", "--model", clip, "--device", "cpu"]
    call(extract_tool, monkeypatch, *args, "--out", tmp_path / "store")
    words = tmp_path / "words.txt"
    words.write_text("dog\ncat\ncar\ntree\nhouse\nred\n")
    call(build_concepts, monkeypatch, words, "--model", clip, "--out", tmp_path / "c.safetensors")
    Vocabulary.build(["a dog"], min_count=1).to_file(tmp_path / "vocabulary.txt")
    settings = TINY | {
        **{f"{loop}_dataloader.dataset.store": tmp_path / "store" for loop in ("train", "val")},
        "model.vocabulary": tmp_path / "vocabulary.txt",
        "model.neck.concepts": tmp_path / "c.safetensors",
        "model.neck.clip_head": None,
        "model.neck.patches_in_joint_space": not joint,
    }
    options = ["--cfg-options", *(f"{key}={value}" for key, value in settings.items())]
    command = ["configs/pcm_coco.py", "--work-dir", tmp_path / "run", *options]
    result = run("train", *command, log=tmp_path / "log")
    assert result.code == 1
    assert f"`model.neck.patches_in_joint_space` must be {joint}, got {not joint}" in result.output
    assert "Traceback" not in result.output
