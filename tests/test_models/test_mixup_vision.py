"""Mix-up inside the vision encoder of another captioner."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pcm_plugin.errors import UserError
from pcm_plugin.models import MixupVisionEncoder, OpenCLIPBackbone, PCMMixup
from pcm_plugin.models.functional.mix import (
    map_patch_grid,
    select_patches_by_count,
    select_patches_by_pairs,
)
from tests.builders import build_clip

MEAN, STD = [120.0, 110.0, 100.0], [60.0, 50.0, 40.0]
WORDS = [f"word{i}" for i in range(7)]


class Grid(nn.Module):
    """Vision encoder with one class token and one patch per square of pixels."""

    embed_dims = 6

    def __init__(self, patch=4):
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(3, 6, patch, patch)

    def forward(self, images):
        patches = self.proj(images).flatten(2).transpose(1, 2)
        return (torch.cat([patches.mean(1, keepdim=True), patches], dim=1),)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return OpenCLIPBackbone(build_clip(tmp_path_factory.mktemp("clip") / "clip"))


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def make(clip, encoder=None, **settings):
    torch.manual_seed(0)
    settings = {"mean": MEAN, "std": STD, "num_top_patches": 3, **settings}
    model = MixupVisionEncoder(encoder or Grid(), clip, **settings)
    if model.matcher is not None:
        model.set_concepts(WORDS, torch.randn(len(WORDS), clip.clip_dim))
    return model


def test_a_patch_belongs_to_the_cell_of_its_center():
    assert (
        map_patch_grid((4, 4), (2, 2)).view(4, 4).tolist()
        == [[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 2
    )
    assert map_patch_grid((3, 2), (3, 2)).tolist() == list(range(6))
    # 24 x 24 patches of BLIP on the 7 x 7 of ViT-B/32: row 10 has its center at 10.5 / 24 * 7
    cells = map_patch_grid((24, 24), (7, 7)).view(24, 24)
    assert cells[10, 0] == 3 * 7
    assert cells.unique().tolist() == list(range(49))
    with pytest.raises(ValueError, match=r"at least as fine as CLIP's \(7, 7\)"):
        map_patch_grid((6, 7), (7, 7))


def test_top_patches_include_the_patches_of_the_top_pairs():
    affinity = torch.randn(5, 9, 4, generator=torch.Generator().manual_seed(1))
    few = select_patches_by_pairs(affinity, 3, 0.1)
    best = select_patches_by_count(affinity, 3)
    assert (best.sum(1) == 3).all()
    assert (few & ~best).sum() == 0
    rank = affinity.amax(-1).argsort(dim=1, descending=True)[:, :3]
    assert all(set(best[i].nonzero().flatten().tolist()) == set(rank[i].tolist()) for i in range(5))


def test_pixels_are_normalized_as_by_the_preprocessing_of_clip(clip, images):
    model = make(clip)
    pixels = torch.randint(0, 256, (1, 3, 16, 16)).float()
    given = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(model.pixels_for_clip(given), (pixels / 255 - 0.5) / 0.25)
    assert model.pixels_for_clip(images).shape == (3, 3, 16, 16)


def test_training_replaces_the_selected_patches(clip, images):
    model = make(clip).train()
    plain = model.encoder(images)[0]
    (tokens,) = model(images)
    found = model.matcher(*clip(model.pixels_for_clip(images)))
    covered = found.selected[:, map_patch_grid((8, 8), (4, 4))]
    assert tokens.shape == plain.shape
    assert (covered.sum(1) == 3 * 4).all()
    assert torch.equal(tokens[:, 0], plain[:, 0])
    changed = (tokens[:, 1:] != plain[:, 1:]).any(-1)
    assert torch.equal(changed, covered)
    # All patches of a cell get the text of that cell.
    slot = found.slots[0, 1]
    inside = (map_patch_grid((8, 8), (4, 4)) == slot).nonzero().flatten()
    text = model.text_norm(model.text_proj(found.text[0, 1]) + model.text_pos[slot])
    torch.testing.assert_close(tokens[0, 1 + inside], text.expand(4, -1))


def test_inference_appends_the_texts_and_every_token_is_valid(clip, images):
    model = make(clip).eval()
    plain = model.encoder(images)[0]
    (tokens,) = model(images)
    assert torch.equal(tokens[:, :65], plain)
    assert tokens.shape[1] == 65 + 3
    found = model.matcher(*clip(model.pixels_for_clip(images)))
    assert (found.slots >= 0).all()
    text = model.text_norm(model.text_proj(found.text) + model.text_pos[found.slots])
    torch.testing.assert_close(tokens[:, 65:], text)
    model.append_text_tokens = False
    assert torch.equal(model(images)[0], plain)


def test_without_selection_it_equals_the_encoder(clip, images):
    model = make(clip, selection="none")
    for training in (True, False):
        assert torch.equal(model.train(training)(images)[0], model.encoder(images)[0])
    assert {key.split(".")[0] for key in model.state_dict()} == {"encoder"}


def test_random_selection_appends_all_texts_at_inference(clip, images):
    model = make(clip, selection="random", random_ratio=0.25)
    assert model.eval()(images)[0].shape[1] == 65 + 16
    assert model.train()(images)[0].shape[1] == 65


def test_all_parameters_have_gradients_except_those_of_clip(clip, images):
    model = make(clip).train()
    model(images)[0].square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert not any(key.startswith("backbone.") for key in model.state_dict())
    # Another domain may need other concepts.
    assert not any("concepts" in key for key in model.state_dict())


@pytest.mark.parametrize("kind", ["eva", "siglip"])
def test_eva_and_siglip_are_supported_as_backbone(kind, tmp_path, images):
    clip = OpenCLIPBackbone(build_clip(tmp_path / kind, kind=kind))
    model = make(clip)
    assert model.eval()(images)[0].shape[1] == 65 + 3
    model.train()(images)[0].sum().backward()
    assert model.text_proj.weight.grad is not None
    assert clip.patches_in_joint_space == (kind == "siglip") == (model.matcher.clip_head is None)


def test_grids_other_than_squares_must_be_set(clip):
    wide = torch.randn(1, 3, 16, 32)
    with pytest.raises(ValueError, match="`grid` must be the rows and columns"):
        make(clip, grid=(3, 9)).train()(wide)
    with pytest.raises(ValueError, match="`grid` must be the rows and columns"):
        make(clip, grid=(3, 9)).eval()(wide)
    model = make(clip, grid=[4, 8]).train()  # JSON and YAML have lists
    found = model.matcher(*clip(model.pixels_for_clip(wide)))
    changed = (model(wide)[0] != model.encoder(wide)[0])[:, 1:].any(-1)
    assert torch.equal(changed, found.selected[:, map_patch_grid((4, 8), (4, 4))])


def test_weights_of_an_unwrapped_encoder_are_loaded(clip):
    """A checkpoint of a captioner fits after its encoder was wrapped."""
    plain = nn.ModuleDict({"vision": Grid(), "words": nn.Linear(6, 3)})
    wrapped = nn.ModuleDict({"vision": make(clip), "words": nn.Linear(6, 3)})
    found = wrapped.load_state_dict(plain.state_dict(), strict=False)
    assert found.unexpected_keys == []
    assert not any("encoder" in key for key in found.missing_keys)
    assert torch.equal(wrapped["vision"].encoder.proj.weight, plain["vision"].proj.weight)
    again = nn.ModuleDict({"vision": make(clip), "words": nn.Linear(6, 3)})
    again.load_state_dict(wrapped.state_dict())
    assert torch.equal(again["vision"].encoder.proj.weight, plain["vision"].proj.weight)


def test_an_encoder_with_a_submodule_named_encoder_is_not_wrapped(clip):
    """Vision Transformers of transformers have such a submodule."""
    inner = nn.Module()
    inner.encoder = Grid()
    inner.embed_dims = 6
    wrapped = nn.ModuleDict({"vision": make(clip, inner)})
    other = nn.ModuleDict({"encoder": Grid()})
    found = wrapped.load_state_dict(
        {f"vision.{key}": value for key, value in other.state_dict().items()}, strict=False
    )
    assert found.unexpected_keys == []
    assert torch.equal(wrapped["vision"].encoder.encoder.proj.weight, other["encoder"].proj.weight)


def test_errors_name_the_value_and_the_fix(clip, images):
    with pytest.raises(ValueError, match="at least as fine as CLIP's"):
        make(clip, Grid(patch=16)).train()(images)
    with pytest.raises(ValueError, match="`embed_dims` must be set for Identity"):
        MixupVisionEncoder(nn.Identity(), clip, MEAN, STD)
    with pytest.raises(UserError, match="has no concepts"):
        MixupVisionEncoder(Grid(), clip, MEAN, STD)(images)
    with pytest.raises(ValueError, match=r"`num_top_patches` must be .* from 1 to 16 .* got `17`"):
        make(clip, num_top_patches=17)
    for selection in ("top_pairs", "per_concept"):
        with pytest.raises(ValueError, match=f"`selection` must be .* got '{selection}'"):
            make(clip, selection=selection)


def test_with_a_fixed_number_of_patches_the_neck_needs_no_mask():
    torch.manual_seed(0)
    neck = PCMMixup(12, 8, 16, num_patches=9, selection="top_patches", num_top_patches=4).eval()
    neck.set_concepts(WORDS, torch.randn(7, 8))
    head = {"ln_post.weight": torch.ones(12), "ln_post.bias": torch.zeros(12)}
    neck.set_clip_head({**head, "proj": torch.randn(12, 8)})
    out = neck(torch.randn(5, 9, 12), F.normalize(torch.randn(5, 8), dim=-1))
    assert out.tokens.shape[1] == 1 + 9 + 4
    assert out.mask.all()
    assert out.selected is not None
    assert (out.selected.sum(1) == 4).all()
