"""CLIPs with an image tower of timm: EVA with a linear head, SigLIP with attention pooling."""

import open_clip
import pytest
import torch
import torch.nn.functional as F

from pcm_plugin.models import OpenCLIPBackbone, PCMMixup
from pcm_plugin.models.functional.patch_affinity import fold_head_bias, project_patches
from tests.builders import build_clip

IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
TEXTS = ["a dog", "the red house next to a tree"]
KINDS = {
    "eva": dict(kind="eva"),
    "eva_average": dict(kind="eva", timm_pool="avg"),
    "timm_plain": dict(kind="siglip", timm_pool="token", timm_proj=None),
    "timm_average": dict(kind="siglip", timm_pool="avg", timm_proj="linear"),
    "timm_no_head": dict(kind="siglip", timm_pool="avg", timm_proj="none"),
    "siglip": dict(kind="siglip"),
    "siglip_linear": dict(kind="siglip", timm_proj="linear"),
    "siglip_mlp": dict(kind="siglip", timm_proj="mlp"),
}
LINEAR = [kind for kind in KINDS if "siglip" not in kind]
JOINT = [kind for kind in KINDS if "siglip" in kind]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return {kind: build_clip(folder / kind, **settings) for kind, settings in KINDS.items()}


def last_states(backbone, images):
    """Record the output of the last block with a hook: class token and patches."""
    seen = []
    block = backbone.clip.visual.trunk.blocks[-1]
    handle = block.register_forward_hook(lambda *call: seen.append(call[2]))
    backbone.clip.encode_image(images)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("kind", KINDS)
def test_features_equal_those_of_open_clip(names, kind):
    backbone = OpenCLIPBackbone(names[kind])
    assert isinstance(backbone.clip, open_clip.CustomTextCLIP)
    patches, features = backbone(IMAGES)
    assert patches.shape == (3, backbone.num_patches, backbone.patch_dim)
    assert (backbone.grid, backbone.patches_in_joint_space) == ((4, 4), kind in JOINT)
    expected = backbone.clip.encode_image(IMAGES, normalize=True)
    torch.testing.assert_close(features, expected)
    assert features.shape == (3, backbone.clip_dim)
    tokens = open_clip.get_tokenizer(names[kind])(TEXTS)
    expected = backbone.clip.encode_text(tokens, normalize=True)
    torch.testing.assert_close(backbone.encode_text(TEXTS), expected)


@pytest.mark.parametrize("kind", LINEAR)
def test_the_head_maps_hidden_states_to_the_global_feature(names, kind):
    backbone = OpenCLIPBackbone(names[kind], pool=4)
    patches, features = backbone(IMAGES)
    weight, bias, proj = backbone.clip_head().values()
    assert proj.shape == (backbone.patch_dim, backbone.clip_dim)
    states = last_states(backbone, IMAGES)
    trunk = backbone.clip.visual.trunk
    own = states[:, trunk.num_prefix_tokens :]
    torch.testing.assert_close(patches, own.mean(1, keepdim=True))
    # The pooling of CLIP: class token, mean of the patches, or mean after the norm.
    taken = states[:, :1] if trunk.global_pool == "token" else own
    taken = patches if isinstance(trunk.fc_norm, torch.nn.LayerNorm) else taken
    eps = backbone.ln_post_eps
    assert eps == 1e-6
    found = project_patches(taken.double(), weight.double(), bias.double(), proj.double(), eps)
    found = found.mean(1).float()
    whole = backbone.clip.encode_image(IMAGES)
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(F.normalize(found, dim=-1), features)


def test_a_bias_is_converted_to_an_offset_before_the_projection():
    generator = torch.Generator().manual_seed(0)
    proj, bias, x = (
        torch.randn(size, generator=generator, dtype=torch.float64)
        for size in ((24, 16), (16,), (9, 24))
    )
    moved = (x + fold_head_bias(proj, bias)) @ proj
    torch.testing.assert_close(moved, x @ proj + bias, atol=1e-12, rtol=1e-12)
    square = proj[:16]
    torch.testing.assert_close(fold_head_bias(square, bias) @ square, bias)
    # Without full column rank, some biases cannot be converted.
    with pytest.raises(ValueError, match=r"\(8, 16\) cannot be converted"):
        fold_head_bias(proj[:8], bias)
    assert torch.equal(fold_head_bias(proj[:8], torch.zeros(16)), torch.zeros(8).double())


def attended(visual, images, allowed):
    """Compute the feature with timm if attention pooling is restricted to some patches."""
    trunk = visual.trunk
    pooled = trunk.attn_pool(trunk.forward_features(images), attn_mask=allowed.view(1, 1, 1, -1))
    return visual.head(trunk.head(trunk.fc_norm(pooled)))


@pytest.mark.parametrize("kind", JOINT)
def test_patch_features_equal_attention_to_one_patch(names, kind):
    backbone = OpenCLIPBackbone(names[kind])
    patches, _ = backbone(IMAGES)
    for n in range(16):
        alone = attended(backbone.clip.visual, IMAGES, torch.arange(16) == n)
        torch.testing.assert_close(patches[:, n], alone)


@pytest.mark.parametrize("kind", JOINT)
def test_pooled_features_equal_uniform_attention_to_a_window(names, kind):
    backbone = OpenCLIPBackbone(names[kind], pool=2)
    keys = backbone.clip.visual.trunk.attn_pool.kv
    keys.weight.data[:16] = 0
    keys.bias.data[:16] = 0
    patches, _ = backbone(IMAGES)
    assert patches.shape[1] == backbone.num_patches == 4
    window = torch.tensor([2, 3, 6, 7])
    even = attended(backbone.clip.visual, IMAGES, torch.isin(torch.arange(16), window))
    torch.testing.assert_close(patches[:, 1], even)


@pytest.mark.parametrize("kind", JOINT)
def test_equal_patches_equal_the_global_feature(names, kind):
    backbone = OpenCLIPBackbone(names[kind])
    backbone.clip.visual.trunk.pos_embed.data.zero_()
    patch = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    patches, features = backbone(patch.tile(1, 1, 4, 4))
    expected = features[:, None].expand(-1, 16, -1)
    torch.testing.assert_close(F.normalize(patches, dim=-1), expected)


def test_unsupported_towers_raise_an_error(tmp_path):
    for tower in (
        # Convolutions; two layers after the pooling; max pooling.
        {"timm_model_name": "test_resnet", "timm_pool": "avg", "timm_proj": "linear"},
        {"timm_pool": "avg", "timm_proj": "mlp"},
        {"timm_pool": "max"},
    ):
        name = build_clip(tmp_path / "_".join(tower.values()), kind="siglip", **tower)
        with pytest.raises(
            ValueError, match=r"can be projected into .*: choose a plain Vision Transf.*EVA"
        ):
            OpenCLIPBackbone(name)


def test_patches_in_the_joint_space_are_not_projected(names):
    backbone = OpenCLIPBackbone(names["siglip"])
    with pytest.raises(ValueError, match=r"has no CLIP head: .*set patches_in_joint_space=True"):
        backbone.clip_head()
    neck = PCMMixup(16, 16, 32, 16, patches_in_joint_space=True).eval()
    assert not neck.needs_clip_head
    assert not any("clip" in key for key in neck.state_dict())
    words = [f"word{i}" for i in range(9)]
    neck.set_concepts(words, torch.randn(9, 16, generator=torch.Generator().manual_seed(3)))
    patches, features = backbone(IMAGES)
    mixed = neck(patches, features)
    cosines = F.normalize(patches, dim=-1) @ neck.concept_bank.embeddings.T
    expected = cosines.gather(2, mixed.concept_ids[:, None].expand(-1, 16, -1))
    torch.testing.assert_close(mixed.affinity, expected * (mixed.affinity != 0))
    assert mixed.affinity.count_nonzero() > 0


def test_settings_that_contradict_patches_in_the_joint_space():
    with pytest.raises(ValueError, match=r"`patch_dim` must equal `clip_dim` .* got `24` and `16`"):
        PCMMixup(24, 16, patches_in_joint_space=True)
    with pytest.raises(ValueError, match=r"`clip_head` must be None .* got `'head.safetensors'`"):
        PCMMixup(16, 16, patches_in_joint_space=True, clip_head="head.safetensors")
    with pytest.raises(ValueError, match="`clip_head` must be None"):
        PCMMixup(16, 16, patches_in_joint_space=True).set_clip_head({})
