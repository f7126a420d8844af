"""Fixtures: a captioning task that trains in a second with the released configs."""

from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from pcm_plugin.engine.config_modules import file_arguments
from pcm_plugin.engine.inputs import HUB_KINDS
from pcm_plugin.formats.clip_head import CLIP_HEAD
from pcm_plugin.formats.concept_set import save_concepts
from pcm_plugin.formats.refined_features import FEATURES_FILE
from pcm_plugin.formats.vocabulary import Vocabulary
from pcm_plugin.models.captioner_file import save_captioner
from pcm_plugin.registry import MODELS
from pcm_plugin.synthesis.pipeline.language_model import build_gpt2
from pcm_plugin.synthesis.refine.features import refine_features
from pcm_plugin.synthesis.refine.settings import ContrastSettings
from tests.builders import build_store

CAPTIONS = [
    ["a dog runs", "a brown dog runs over the grass near a man"],
    ["two men sit on a bench", "men"],
    ["a cat sleeps on a red sofa", "a cat on a sofa"],
    ["a boat on the sea", "a small boat sails far out on the sea"],
    ["a woman rides a horse", "a horse carries a woman over the grass"],
    ["a red car", "a car stands near the sea"],
]

# Sizes at which a training step takes milliseconds.
TINY = {
    "model.neck.patch_dim": 12,
    "model.neck.clip_dim": 8,
    "model.neck.num_patches": 4,
    "param_scheduler.embed_dims": 16,
    "param_scheduler.warmup": 4,
    "train_dataloader.batch_size": 4,
    **{f"model.{part}.embed_dims": 16 for part in ("neck", "encoder", "decoder")},
    **{f"model.{part}.num_layers": 1 for part in ("encoder", "decoder")},
    **{f"model.{part}.num_heads": 2 for part in ("encoder", "decoder")},
    **{f"model.{part}.ffn_dims": 32 for part in ("encoder", "decoder")},
    **{f"{loop}_dataloader.num_workers": 0 for loop in ("train", "val", "test")},
    **{f"{loop}_dataloader.persistent_workers": False for loop in ("train", "val", "test")},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest test first, so that it does not occupy one worker at the end."""
    items.sort(key=lambda item: "test_demo.py" not in item.nodeid)


@pytest.fixture
def logged(caplog):
    """Capture the messages of MMEngine's logger."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture(scope="session")
def write_inputs(tmp_path_factory):
    """Return a function that writes the input files of a config and returns their settings."""

    def write(cfg: Config) -> dict[str, Any]:
        tmp_path = tmp_path_factory.mktemp("inputs")
        neck = cfg.model.neck
        sizes = dict(
            num_patches=neck.get("num_patches", 49),
            patch_dim=neck.get("patch_dim", 6),
            clip_dim=neck.clip_dim,
            with_head=not neck.get("patches_in_joint_space", False),
        )
        build_store(tmp_path / "train", CAPTIONS, **sizes)
        build_store(tmp_path / "real", CAPTIONS[:3], seed=1, **sizes)
        vocabulary = tmp_path / "vocabulary.txt"
        texts = [text for captions in CAPTIONS for text in captions]
        Vocabulary.build(texts, min_count=1).to_file(vocabulary)
        concepts = tmp_path / "concepts.safetensors"
        words = ["dog", "man", "cat", "boat", "horse", "car", "sea"]
        generator = torch.Generator().manual_seed(2)
        save_concepts(concepts, words, torch.randn(7, neck.clip_dim, generator=generator))
        refine_features(tmp_path / "train", ContrastSettings(), tmp_path / "contrast", device="cpu")
        paths = {
            "model.vocabulary": str(vocabulary),
            "model.neck.concepts": str(concepts),
            "model.entity_prompt.concepts": str(concepts),
            "model.entity_prompt.caption_entities": str(concepts),
            "model.neck.clip_head": str(tmp_path / "train" / CLIP_HEAD)
            if sizes["with_head"]
            else None,
            "model.neck.text_memory": str(tmp_path / "train"),
            "train_dataloader.dataset.store": str(tmp_path / "train"),
            "train_dataloader.dataset.refined_features": str(tmp_path / "contrast" / FEATURES_FILE),
            "val_dataloader.dataset.store": str(tmp_path / "real"),
            "test_dataloader.dataset.store": str(tmp_path / "real"),
        }
        # The name of a language model on a hub is not a file.
        keys = [a.key for a in file_arguments(cfg) if a.kind not in HUB_KINDS]
        settings = {key: paths.get(key) for key in keys}
        if "language_model" in cfg.model:  # a model name is not a required file
            build_gpt2(texts, tmp_path / "gpt2", layers=1, width=32, heads=2)
            settings |= {"model.language_model": str(tmp_path / "gpt2"), "model.pretrained": False}
        return settings

    return write


@pytest.fixture(scope="session")
def tiny_settings(write_inputs):
    """Return settings that make ``configs/pcm_coco.py`` train in a second."""
    cfg = Config.fromfile("configs/pcm_coco.py")
    cfg.merge_from_dict(TINY)
    return {**TINY, **write_inputs(cfg)}


@pytest.fixture(scope="session")
def decap_file(tmp_path_factory):
    """Return the captioner file of an untrained DeCap of the toy world, with a text memory."""
    folder = tmp_path_factory.mktemp("decap")
    texts = ["a red car on a street", "a dog", "two cats in a kitchen", "a tree", "a blue boat"]
    Vocabulary.build(texts, min_count=1).to_file(folder / "vocabulary.txt")
    cfg = Config.fromfile("configs/decap/decap_toy.py")
    cfg.model.vocabulary = str(folder / "vocabulary.txt")
    cfg.model.neck.text_memory = None
    cfg.model.decoding = {"min_len": 3}
    torch.manual_seed(0)
    model = MODELS.build({**cfg.model, "backbone": {"type": "OpenCLIPBackbone", **cfg.clip}})
    model.neck.set_text_memory(model.backbone.encode_text(texts))
    path = folder / "captioner.safetensors"
    save_captioner(path, model, cfg.model.to_dict(), cfg.clip.to_dict())
    return path
