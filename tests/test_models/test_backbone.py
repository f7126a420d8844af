import contextlib
import json
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from PIL import Image

from pcm_plugin.engine.config_files import find_config
from pcm_plugin.errors import UserError
from pcm_plugin.models import OpenCLIPBackbone
from pcm_plugin.models.backbones.image_towers import apply_block
from pcm_plugin.registry import MODELS
from tests.builders import build_clip

IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    kinds = {
        "token": {},
        "average": {"pool_type": "avg"},
        "layer_scale": {"ls_init_value": 0.3},
        "norm_after_pool": {"pool_type": "avg", "final_ln_after_pool": True},
        "attention": {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2},
    }
    folder = tmp_path_factory.mktemp("clips")
    return {kind: build_clip(folder / kind, **vision) for kind, vision in kinds.items()}


def last_hidden_states(backbone, images):
    """Record the input of ``ln_post`` with a hook."""
    seen = []
    block = backbone.clip.visual.transformer.resblocks[-1]
    handle = block.register_forward_hook(lambda *call: seen.append(call[2]))
    backbone.clip.encode_image(images)
    handle.remove()
    return seen[0][:, 1:]


@pytest.mark.parametrize("kind", ["token", "average", "norm_after_pool"])
def test_features_equal_those_of_open_clip(names, kind):
    backbone = OpenCLIPBackbone(names[kind])
    patches, features = backbone(IMAGES)
    assert patches.shape == (3, backbone.num_patches, backbone.patch_dim) == (3, 16, 16)
    assert features.shape == (3, backbone.clip_dim) == (3, 8)
    torch.testing.assert_close(patches, last_hidden_states(backbone, IMAGES))
    torch.testing.assert_close(features, backbone.clip.encode_image(IMAGES, normalize=True))


def attention_of_last_block(backbone, images):
    """Return the input of the last block, and its queries, keys and values (B, L, D)."""
    seen = []
    block = backbone.clip.visual.transformer.resblocks[-1]
    handle = block.register_forward_pre_hook(lambda *call: seen.append(call[1][0]))
    backbone.clip.encode_image(images)
    handle.remove()
    weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
    return block, seen[0], F.linear(block.ln_1(seen[0]), weight, bias).chunk(3, -1)


def attend(first, second, value, heads):
    """Compute softmax(first second^T / sqrt(d)) value head by head."""
    parts = zip(*(x.chunk(heads, -1) for x in (first, second, value)), strict=True)
    scores = [(a @ b.transpose(1, 2) / a.shape[-1] ** 0.5).softmax(-1) @ v for a, b, v in parts]
    return torch.cat(scores, -1)


@pytest.mark.parametrize("mode", ["maskclip", "sclip"])
@pytest.mark.parametrize("kind", ["token", "average", "layer_scale"])
def test_patch_modes_change_the_attention_of_the_last_block(names, kind, mode):
    backbone = OpenCLIPBackbone(names[kind], patch_mode=mode)
    patches, features = backbone(IMAGES)
    block, states, (query, key, value) = attention_of_last_block(backbone, IMAGES)
    heads = block.attn.num_heads
    assert heads > 1
    mixed = {
        "maskclip": value,
        "sclip": attend(query, query, value, heads) + attend(key, key, value, heads),
    }
    scale = 0.3 if kind == "layer_scale" else 1
    expected = states + scale * block.attn.out_proj(mixed[mode])
    expected = expected + scale * block.mlp(block.ln_2(expected))
    torch.testing.assert_close(patches, expected[:, 1:])
    torch.testing.assert_close(features, backbone.clip.encode_image(IMAGES, normalize=True))


def test_the_plain_attention_is_that_of_the_block(names):
    backbone = OpenCLIPBackbone(names["token"])
    block, states, _ = attention_of_last_block(backbone, IMAGES)
    torch.testing.assert_close(apply_block(block, states, "plain"), block(states))


def test_patch_modes_of_pooled_patches_are_averaged(names):
    fine, _ = OpenCLIPBackbone(names["token"], patch_mode="sclip")(IMAGES)
    coarse, _ = OpenCLIPBackbone(names["token"], pool=2, patch_mode="sclip")(IMAGES)
    torch.testing.assert_close(coarse[:, 1], fine[:, [2, 3, 6, 7]].mean(1))


def test_patch_modes_need_a_plain_vision_transformer_and_a_known_name(names, tmp_path):
    with pytest.raises(UserError, match="`patch_mode` must be one of plain, maskclip, sclip, got"):
        OpenCLIPBackbone(names["token"], patch_mode="dense")
    eva = build_clip(tmp_path / "eva", kind="eva")
    with pytest.raises(UserError, match="`patch_mode` must be 'plain' for the image tower Eva"):
        OpenCLIPBackbone(eva, patch_mode="sclip")
    single = build_clip(tmp_path / "single", layers=1)
    with pytest.raises(UserError, match="two or more standard blocks"):
        OpenCLIPBackbone(single, patch_mode="maskclip")


def test_pooling_averages_two_by_two_patches(names):
    fine, _ = OpenCLIPBackbone(names["token"])(IMAGES)
    backbone = OpenCLIPBackbone(names["token"], pool=2)
    coarse, _ = backbone(IMAGES)
    assert coarse.shape == (3, backbone.num_patches, 16) == (3, 4, 16)
    torch.testing.assert_close(coarse[:, 1], fine[:, [2, 3, 6, 7]].mean(1))
    torch.testing.assert_close(coarse[:, 2], fine[:, [8, 9, 12, 13]].mean(1))


def test_average_pooled_global_feature_comes_from_the_patches_and_the_head(names):
    backbone = OpenCLIPBackbone(names["average"])
    patches, features = backbone(IMAGES)
    head = backbone.clip_head()
    local = F.layer_norm(patches, (16,), head["ln_post.weight"], head["ln_post.bias"])
    torch.testing.assert_close(F.normalize(local.mean(1) @ head["proj"], dim=-1), features)


@pytest.mark.parametrize(
    "name",
    ["pcm_coco", "pcm_coco_vitl14", "pcm_coco_dfn", "pcm_coco_eva02", "pcm_coco_siglip2"],
)
def test_the_sizes_in_the_configs_are_those_of_their_clips(name, monkeypatch):
    create = open_clip.create_model_and_transforms

    def without_weights(model_name, pretrained, require_pretrained):
        with torch.device("meta"):
            return create(model_name, device="meta")

    monkeypatch.setattr(open_clip, "create_model_and_transforms", without_weights)
    cfg = Config.fromfile(find_config(name))
    assert (cfg.clip.model_name, cfg.clip.pretrained) in open_clip.list_pretrained()
    backbone = OpenCLIPBackbone(cfg.clip.model_name, cfg.clip.pretrained, cfg.clip.pool)
    neck = cfg.model.neck
    found = (backbone.num_patches, backbone.patch_dim, backbone.clip_dim)
    assert found == (neck.num_patches, neck.patch_dim, neck.clip_dim)
    assert backbone.patches_in_joint_space == neck.get("patches_in_joint_space", False)
    assert backbone.patches_in_joint_space or backbone.ln_post_eps == neck.get("ln_post_eps", 1e-5)
    patches, features = backbone(torch.empty(2, 3, 224, 224, device="meta"))
    assert patches.shape == (2, neck.num_patches, neck.patch_dim)
    assert features.shape == (2, neck.clip_dim)


def test_text_embeddings_equal_those_of_open_clip(names):
    backbone = OpenCLIPBackbone(names["token"])
    texts = ["a dog", "two cats on a sofa"]
    tokens = open_clip.get_tokenizer(names["token"])(texts)
    expected = backbone.clip.encode_text(tokens, normalize=True)
    torch.testing.assert_close(backbone.encode_text(texts), expected)


def test_texts_are_cut_to_the_longest_of_the_batch(names):
    backbone = OpenCLIPBackbone(names["token"])
    seen = []
    backbone.clip.transformer.register_forward_pre_hook(
        lambda _, given: seen.append(given[0].shape[1])
    )
    backbone.encode_text(["a dog", "two cats on a sofa"])
    assert seen[0] < backbone.clip.context_length


def test_preprocess_resizes_and_normalizes(names):
    image = OpenCLIPBackbone(names["token"]).preprocess(Image.new("RGB", (90, 70), "red"))
    assert image.shape == (3, 16, 16)
    assert image[0].min() > 1 > image[1].max()


def test_the_backbone_is_frozen_and_not_saved(names):
    model = torch.nn.ModuleDict(
        {"clip": MODELS.build({"type": "OpenCLIPBackbone", "model_name": names["token"]})}
    )
    model.train()
    assert not model.state_dict()
    assert not list(model.parameters())
    assert not model["clip"].clip.training
    assert not model["clip"](IMAGES)[0].requires_grad
    # The backbone follows the dtype of the model.
    model.double()
    assert model["clip"](IMAGES.double())[1].dtype == torch.float64


def test_errors_name_the_value_and_the_fix(names, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        OpenCLIPBackbone("local-dir:nowhere")
    with pytest.raises(ValueError, match=r"`pool` must divide the 4 x 4 patches of .* got `3`"):
        OpenCLIPBackbone(names["token"], pool=3)
    with pytest.raises(ValueError, match="plain Vision Transformer"):
        OpenCLIPBackbone(names["attention"])
    with pytest.raises(ValueError, match=r"got \(1, 3, 8, 8\).*preprocess"):
        OpenCLIPBackbone(names["token"])(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("ViT-B-23", "openai", "`model_name` must .* got `ViT-B-23`: pass .*'ViT-B-32'"),
        ("ViT-B-32", "opanai", "`pretrained` must .* got `opanai`: pass .*'openai'"),
        ("ViT-B-32-quickgelu", None, "`pretrained` must .* got `None`: pass .*'openai'"),
        ("ViT-S-32-alt", None, "`pretrained` must .* got `None`: pass a file"),
    ],
)
def test_unknown_models_and_weights_are_user_errors(name, pretrained, message):
    with pytest.raises(UserError, match=message):
        OpenCLIPBackbone(name, pretrained)


@pytest.mark.parametrize(
    ("name", "pretrained"), [("hf-hub:nobody/nothing", None), ("RN50", "openai")]
)
def test_a_failed_download_is_a_user_error(name, pretrained, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError("no network")

    monkeypatch.setattr(open_clip.factory, "_get_hf_config", fail)
    monkeypatch.setattr(open_clip.factory, "download_pretrained", fail)
    with pytest.raises(UserError, match=rf"{name}.*no network\): check the name and the network"):
        OpenCLIPBackbone(name, pretrained)


def test_a_damaged_clip_folder_is_a_user_error(names, tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    name = f"local-dir:{folder}"
    with pytest.raises(UserError, match="config file missing"):
        OpenCLIPBackbone(name)
    (folder / "open_clip_config.json").write_text("{}")
    with pytest.raises(UserError, match="missing 'model_cfg'"):
        OpenCLIPBackbone(name)
    config = Path(names["token"].removeprefix("local-dir:")) / "open_clip_config.json"
    (folder / "open_clip_config.json").write_bytes(config.read_bytes())
    with pytest.raises(UserError, match="could not be loaded"):
        OpenCLIPBackbone(name)


def test_other_errors_of_open_clip_keep_their_type(monkeypatch):
    def fail(*_args, **_kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(open_clip, "create_model_and_transforms", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        OpenCLIPBackbone("ViT-B-32-quickgelu", "openai")


def test_weights_trained_with_the_other_activation_are_refused(monkeypatch):
    def warn(*args, **kwargs):
        import warnings

        warnings.warn("QuickGELU mismatch between final model config and tag", stacklevel=1)

    monkeypatch.setattr(open_clip, "create_model_and_transforms", warn)
    with pytest.raises(ValueError, match="-quickgelu"):
        OpenCLIPBackbone("ViT-B-32", "openai")


def test_code_in_the_folder_of_a_clip_is_not_run(tmp_path):
    name = build_clip(tmp_path / "clip")
    folder, ran = tmp_path / "clip", tmp_path / "ran"
    (folder / "tok.py").write_text(
        f"from transformers import PreTrainedTokenizerFast\nopen({str(ran)!r}, 'w').close()\n"
        "class Tok(PreTrainedTokenizerFast):\n    pass\n"
    )
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"]["trust_remote_code"] = True
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer |= {"tokenizer_class": "Tok", "auto_map": {"AutoTokenizer": [None, "tok.Tok"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    backbone = OpenCLIPBackbone(name)
    with contextlib.suppress(ValueError):
        backbone.encode_text(["a dog"])
    assert not ran.exists()
