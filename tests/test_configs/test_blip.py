"""The configurations of mmpretrain's captioners, built and stepped at tiny sizes."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from PIL import Image

from pcm_plugin.apis import CaptionInferencer
from pcm_plugin.commands.build_commands import check_inputs
from pcm_plugin.engine.config_files import find_config
from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.coco import write_coco_captions
from pcm_plugin.formats.concept_set import save_concepts
from pcm_plugin.synthesis.extract.extract_features import extract_features
from pcm_plugin.synthesis.extract.open_source import open_source
from pcm_plugin.synthesis.extract.settings import ExtractSettings
from pcm_plugin.synthesis.pipeline.language_model import build_bert_tokenizer, build_gpt2
from tests.builders import build_clip
from tests.mmpretrain_models import skip_without_mmpretrain_models

NAMES = ["pcm_blip_coco", "pcm_blip_toy", "pcm_blip2_coco"]
CAPTIONS = ["a red dog runs on the street", "a blue car", "the cat sits", "a green tree", "a house"]
# mmengine reads mmpretrain's own configs by pkg_resources, and mmcv-lite says what it lacks.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def models():
    skip_without_mmpretrain_models()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Images with captions, their store, CLIP, concepts and tiny language models."""
    root = tmp_path_factory.mktemp("blip")
    clip = build_clip(root / "clip")
    (root / "images").mkdir()
    for i in range(len(CAPTIONS)):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{i}.png")
    entries = [(i, f"{i}.png", [text]) for i, text in enumerate(CAPTIONS)]
    write_coco_captions(root / "captions.json", entries)
    source = open_source(root / "images", root / "captions.json", 4)
    extract_features(source, ExtractSettings(clip, dtype="float32"), root / "store", 4, "cpu")
    save_concepts(root / "concepts.safetensors", list("abcdefg"), torch.randn(7, 8))
    build_bert_tokenizer(CAPTIONS, root / "bert")
    build_gpt2(CAPTIONS, root / "gpt2")
    return root


def shrink_blip(cfg, made):
    cfg.model.tokenizer.name_or_path = str(made / "bert")
    cfg.model.decoder_head.decoder.med_config.update(
        hidden_size=16,
        intermediate_size=32,
        num_attention_heads=2,
        num_hidden_layers=1,
        vocab_size=600,
        encoder_width=16,
    )
    return cfg.model.vision_encoder


def shrink_blip2(cfg, made):
    from transformers import AutoTokenizer, BertConfig, OPTConfig

    tokenizer = AutoTokenizer.from_pretrained(made / "gpt2")
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(made / "opt")
    opt = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        word_embed_proj_dim=16,
        ffn_dim=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
    )
    opt.save_pretrained(made / "opt")
    style = BertConfig(hidden_size=16, intermediate_size=32, num_attention_heads=2)
    style.num_hidden_layers = 2
    style.save_pretrained(made / "qformer")
    cfg.model.tokenizer.name_or_path = str(made / "opt")
    cfg.model.text_backbone.update(name_or_path=str(made / "opt"), load_pretrained=False)
    cfg.model.multimodal_backbone.update(
        model_style=str(made / "qformer"), vision_model_width=16, num_query_token=4
    )
    cfg.model.vision_neck.update(in_channels=16, num_classes=16)
    return cfg.model.vision_backbone


@pytest.fixture
def load(made):
    """A function that reads a config and makes it tiny."""

    def load(name):
        cfg = Config.fromfile(find_config(name))
        vision = shrink_blip2(cfg, made) if "blip2" in name else shrink_blip(cfg, made)
        layers = 1 if "blip2" not in name else 2
        sizes = dict(embed_dims=16, num_layers=layers, num_heads=2, feedforward_channels=32)
        vision.encoder.update(arch=sizes, img_size=32, patch_size=4)
        if "frozen_stages" in vision.encoder:
            vision.encoder.frozen_stages = layers
        vision.backbone.update(model_name=f"local-dir:{made / 'clip'}", pretrained=None)
        vision.concepts = str(made / "concepts.safetensors")
        for loop in ("train", "val", "test"):
            loader = cfg[f"{loop}_dataloader"]
            loader.update(num_workers=0, persistent_workers=False, batch_size=len(CAPTIONS))
            loader.dataset.update(store=str(made / "store"), img_dir=str(made / "images"))
            for step in loader.dataset.pipeline:
                if "scale" in step:
                    step.scale = 32 if isinstance(step.scale, int) else (32, 32)
        return cfg

    with DefaultScope.overwrite_default_scope("mmpretrain"):
        yield load


def build(cfg):
    torch.manual_seed(0)
    return MODELS.build({**cfg.model, "data_preprocessor": cfg.data_preprocessor})


@pytest.mark.parametrize("name", NAMES)
def test_steps_and_captions(name, load):
    cfg = load(name)
    model = build(cfg)
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    learning = {key: p.clone() for key, p in model.named_parameters() if p.requires_grad}
    batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
    model.train()
    losses = model.train_step(batch, optim_wrapper)
    assert torch.isfinite(losses["loss"])
    now = dict(model.named_parameters())
    moved = {key for key, before in learning.items() if not torch.equal(now[key], before)}
    slot = "vision_backbone" if "blip2" in name else "visual_encoder"
    assert {f"{slot}.text_proj.weight", f"{slot}.text_pos", f"{slot}.text_norm.bias"} <= moved
    # DDP waits for every parameter that learns
    model(**model.data_preprocessor(batch, True), mode="loss")["loss"].backward()
    assert [key for key in learning if now[key].grad is None] == []

    model.eval()
    for loop in ("val", "test"):
        evaluator = Evaluator(cfg[f"{loop}_evaluator"])
        batch = next(iter(Runner.build_dataloader(cfg[f"{loop}_dataloader"], seed=0)))
        if "blip2" in name and not hasattr(model.text_backbone, "generate"):
            with pytest.raises(UserError, match=r"cannot generate captions.*use mmpretrain 1\.2"):
                model.test_step(batch)
            continue
        samples = model.test_step(batch)
        assert [type(sample.pred_caption) for sample in samples] == [str] * len(CAPTIONS)
        assert [sample.gt_caption for sample in samples] == [[text] for text in CAPTIONS]
        evaluator.process(samples, batch)
        assert "caption/CIDEr" in evaluator.evaluate(len(CAPTIONS))


@pytest.mark.parametrize("name", ["pcm_blip_coco", "pcm_blip2_coco"])
def test_the_loss_weights_each_pair_by_its_score(name, load):
    cfg = load(name)
    cfg.model.loss.update(gamma_type="none", label_smoothing=0.0, clip_weight=1.0)
    model = build(cfg).eval()
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    batch = model.data_preprocessor(next(iter(loader)), True)
    batch["data_samples"] = batch["data_samples"][:2]
    batch["images"] = batch["images"][:2]

    def loss(*scores):
        for sample, score in zip(batch["data_samples"], scores, strict=True):
            sample.clip_score = 2.5 * score
        return model(**batch, mode="loss")["loss"].detach()

    one, other = loss(1.0, 0.0), loss(0.0, 1.0)
    assert not torch.isclose(one, other)
    torch.testing.assert_close(loss(1.0, 1.0), one + other)
    torch.testing.assert_close(loss(0.25, 0.5), 0.25 * one + 0.5 * other)

    # without weights it is the loss that mmpretrain's captioner computes
    model.loss_module.use_clip_weight = False
    own = type(model).__mro__[2].loss(model, **batch)
    if "blip2" not in name:  # BLIP smooths its own
        decoder = model.seq_gen_head
        decoder.loss_fn = MODELS.build(dict(type="mmpretrain.CrossEntropyLoss"))
        own = type(model).__mro__[2].loss(model, **batch)
    torch.testing.assert_close(loss(1.0, 1.0), next(iter(own.values())).detach())


def test_the_decoder_attends_to_mixed_tokens(load):
    """What is appended reaches the words; with selection='none' nothing is."""
    cfg = load("pcm_blip_coco")
    model = build(cfg).eval()
    batch = model.data_preprocessor(
        next(iter(Runner.build_dataloader(cfg.val_dataloader, seed=0))), False
    )
    with_texts = model.visual_encoder(batch["images"])[0]
    model.visual_encoder.append_text_tokens = False
    without = model.visual_encoder(batch["images"])[0]
    assert with_texts.shape[1] == without.shape[1] + 5
    torch.testing.assert_close(with_texts[:, : without.shape[1]], without)


def test_tools_for_captioners_on_features_refuse_blip(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"")
    cfg = Config.fromfile("configs/blip/pcm_blip_coco.py")
    with pytest.raises(ValueError, match=r"CLIPWeightedBlipCaption.*pcm test"):
        CaptionInferencer(cfg, tmp_path / "weights.pth", device="cpu")


@pytest.mark.parametrize("name", NAMES)
def test_missing_inputs_are_reported(name, tmp_path, monkeypatch):
    cfg = Config.fromfile(find_config(name))
    # Where no `make demo` has made them.
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingFileError) as caught:
        check_inputs(cfg, ("train", "val"))
    message = str(caught.value)
    for what in (
        "concepts)",
        "(train_dataloader.dataset.store)",
        "(train_dataloader.dataset.img_dir",
    ):
        assert what in message
    assert message.count("made by: ") >= 2
