import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from pcm_plugin.errors import UserError
from pcm_plugin.formats.concept_set import save_concepts
from pcm_plugin.models import GlobalPrefix, PCMMixup
from pcm_plugin.registry import MODELS

B, N, DV, DC, D, C = 4, 9, 12, 8, 16, 20
WORDS = [f"word{i}" for i in range(C)]


def make_neck(**settings):
    torch.manual_seed(0)
    config = {"patch_dim": DV, "clip_dim": DC, "embed_dims": D, "num_patches": N, "dropout": 0.0}
    neck = PCMMixup(**{**config, **settings})
    if neck.matcher is not None:
        neck.set_concepts(WORDS, torch.randn(C, DC))
        neck.set_clip_head(make_head())
    return neck


def make_head():
    return {
        "ln_post.weight": torch.randn(DV),
        "ln_post.bias": torch.randn(DV),
        "proj": torch.randn(DV, DC),
    }


def make_feats():
    torch.manual_seed(1)
    return torch.randn(B, N, DV), torch.randn(B, DC)


@pytest.mark.parametrize("selection", ["top_pairs", "per_concept", "top_patches", "random", "none"])
@pytest.mark.parametrize("training", [True, False])
def test_forward_does_not_modify_inputs_or_buffers(selection, training):
    neck = make_neck(selection=selection, random_ratio=0.5).train(training)
    feats = make_feats()
    before = [part.clone() for part in (*feats, *neck.buffers())]
    neck(*feats)
    assert all(torch.equal(a, b) for a, b in zip(before, (*feats, *neck.buffers()), strict=True))


def test_set_concepts_copies_the_embeddings():
    neck, embeddings = make_neck(), torch.randn(C, DC)
    kept = embeddings.clone()
    neck.set_concepts(WORDS, embeddings)
    neck.eval()(*make_feats())
    assert torch.equal(embeddings, kept)
    embeddings.zero_()
    assert torch.equal(neck.concept_bank.embeddings, F.normalize(kept, dim=-1))
    assert neck.concept_words == WORDS


def test_half_precision_features_equal_float32_features():
    neck, feats = make_neck().eval(), [part.half() for part in make_feats()]
    assert torch.equal(neck(*feats).tokens, neck(*(part.float() for part in feats)).tokens)


def test_training_replaces_and_inference_appends():
    neck, feats = make_neck(noise_var=0.0), make_feats()
    trained, applied = neck.train()(*feats), neck.eval()(*feats)
    assert torch.equal(trained.selected, applied.selected)
    assert trained.tokens.shape == (B, 1 + N, D)
    assert trained.mask.all()
    assert applied.tokens.shape == (B, 1 + N + 5, D)
    assert torch.equal(applied.mask.sum(1), 1 + N + applied.selected.sum(1))
    for image in range(B):
        owners = applied.selected[image].nonzero().flatten()
        assert 0 < len(owners) < N
        assert applied.slots[image][: len(owners)].tolist() == owners.tolist()
        # The text that replaces a patch in training is in a slot at inference.
        torch.testing.assert_close(
            trained.tokens[image, 1 + owners],
            applied.tokens[image, 1 + N : 1 + N + len(owners)],
        )
        others = (~applied.selected[image]).nonzero().flatten()
        kept = [0, *(1 + others).tolist()]
        torch.testing.assert_close(trained.tokens[image, kept], applied.tokens[image, kept])


def test_without_selection_tokens_are_the_projected_features():
    neck, (patches, feats) = make_neck(selection="none", noise_var=0.0), make_feats()
    out = neck(patches, feats)
    visual = torch.cat(
        [neck.global_proj(F.normalize(feats, dim=-1))[:, None], neck.patch_proj(patches)], dim=1
    )
    torch.testing.assert_close(out.tokens, neck.norm(F.relu(visual + neck.pos_embed)))
    assert out.mask.all()
    assert out.concept_ids is out.slots is None
    assert not [name for name, _ in neck.named_parameters() if "text" in name or "type" in name]


def test_texts_can_be_omitted_at_inference():
    feats, neck = make_feats(), make_neck().eval()
    whole = neck(*feats)
    neck.append_text_tokens = False
    bare = neck(*feats)
    assert bare.mask.shape == (len(bare.tokens), 1 + N)
    assert bare.mask.all()
    torch.testing.assert_close(bare.tokens, whole.tokens[:, : 1 + N])
    assert torch.equal(bare.selected, whole.selected)


def test_random_selection_replaces_a_share_and_appends_all():
    neck = make_neck(selection="random", random_ratio=0.3)
    feats = [part.repeat(500, *[1] * (part.dim() - 1)) for part in make_feats()]
    share = neck.train()(*feats).selected.float().mean()
    assert float(share) == pytest.approx(0.3, abs=0.02)
    out = neck.eval()(*make_feats())
    assert out.selected.all()
    assert out.slots.tolist() == [list(range(N))] * B
    assert out.mask.all()


def test_per_concept_selects_the_best_patch_of_each_concept():
    # At this temperature the text of a patch would be a mixture of all concepts.
    neck = make_neck(selection="per_concept", concept_threshold=0.1, temperature=0.1).eval()
    out = neck(*make_feats())
    kept = out.concept_probs > 0.1
    assert kept.any()
    assert not kept.all()
    for image in range(B):
        ranks = kept[image].nonzero().flatten().tolist()
        best = {rank: int(out.affinity[image, :, rank].argmax()) for rank in ranks}
        assert out.selected[image].nonzero().flatten().tolist() == sorted({*best.values()})
        for slot, patch in enumerate(out.slots[image].tolist()):
            owners = [rank for rank in ranks if best[rank] == patch]
            if len(owners) == 1:  # then the text of the slot is that of the concept alone
                word = neck.concept_bank.embeddings[out.concept_ids[image, owners[0]]]
                token = neck.text_proj(word) + neck.pos_embed[0, 1 + patch]
                expected = neck.norm(F.relu(token + neck.type_embed.weight[1]))
                torch.testing.assert_close(out.tokens[image, 1 + N + slot], expected)


def test_per_concept_without_any_concept_adds_no_text():
    out = make_neck(selection="per_concept", concept_threshold=1.0).eval()(*make_feats())
    assert not out.selected.any()
    assert out.mask.sum(1).tolist() == [1 + N] * B
    assert out.tokens.isfinite().all()


def test_training_with_append_has_the_tokens_of_inference():
    neck, feats = make_neck(mix="append", noise_var=0.0, append_text_tokens=False), make_feats()
    trained = neck.train()(*feats)
    neck.append_text_tokens = True
    applied = neck.eval()(*feats)
    assert torch.equal(trained.tokens, applied.tokens)
    assert torch.equal(trained.mask, applied.mask)


def test_dropped_patches_are_replaced_by_a_token_and_inference_has_no_texts():
    neck, feats = make_neck(mix="drop", noise_var=0.0), make_feats()
    assert "mask_token" in dict(neck.named_parameters())
    torch.nn.init.normal_(neck.mask_token)
    plain = make_neck(selection="none", noise_var=0.0)
    plain.load_state_dict(neck.state_dict(), strict=False)
    trained, applied, base = neck.train()(*feats), neck.eval()(*feats), plain(*feats)
    torch.testing.assert_close(applied.tokens, base.tokens)
    selected = F.pad(trained.selected, (1, 0))
    assert 0 < selected.sum() < B * N
    torch.testing.assert_close(trained.tokens[~selected], base.tokens[~selected])
    masked = neck.norm(F.relu(neck.mask_token + neck.pos_embed)).expand(B, -1, -1)
    torch.testing.assert_close(trained.tokens[selected], masked[selected])


@pytest.mark.parametrize("mix", ["replace", "drop"])
def test_random_patches_are_as_many_and_get_the_same_texts(mix):
    settings = {"noise_var": 0.0, "mix": mix}
    neck, feats = make_neck(control="random_patches", **settings).train(), make_feats()
    right = make_neck(**settings).train()
    right.load_state_dict(neck.state_dict())
    right.set_concepts(WORDS, neck.concept_bank.embeddings)
    out, expected = neck(*feats), right(*feats)
    assert torch.equal(out.selected.sum(1), expected.selected.sum(1))
    assert not torch.equal(out.selected, expected.selected)
    if mix == "replace":
        with torch.no_grad():
            neck.pos_embed.zero_()
            right.pos_embed.zero_()
        out, expected = neck(*feats), right(*feats)
        for image in range(B):
            found, texts = (
                torch.tensor(sorted(part.tokens[image, 1:][part.selected[image]].tolist()))
                for part in (out, expected)
            )
            torch.testing.assert_close(found, texts)


def test_random_patches_are_drawn_at_inference_too():
    neck, feats = make_neck(control="random_patches").eval(), make_feats()
    first, second = neck(*feats), neck(*feats)
    assert not torch.equal(first.selected, second.selected)
    for image in range(B):
        owners = first.selected[image].nonzero().flatten().tolist()
        assert first.slots[image][: len(owners)].tolist() == owners
        assert (first.slots[image][len(owners) :] == -1).all()


def test_random_concepts_change_the_texts_only():
    neck, feats = make_neck(control="random_concepts", noise_var=0.0).train(), make_feats()
    first, second = neck(*feats), neck(*feats)
    assert torch.equal(first.selected, second.selected)
    assert torch.equal(first.concept_ids, second.concept_ids)
    kept = ~F.pad(first.selected, (1, 0))
    assert torch.equal(first.tokens[kept], second.tokens[kept])
    assert not torch.allclose(first.tokens[~kept], second.tokens[~kept])
    applied = neck.eval()(*feats).tokens
    assert torch.equal(applied[:, : 1 + N], neck(*feats).tokens[:, : 1 + N])
    assert not torch.allclose(applied, neck(*feats).tokens)


def test_random_concepts_are_others_and_differ_between_images():
    bank = make_neck().concept_bank
    ids = torch.arange(5).expand(300, 5)
    drawn = (bank.draw_others(ids) @ bank.embeddings.T).argmax(-1)  # (300, 5)
    assert drawn.min() == 5
    assert {*drawn.flatten().tolist()} == {*range(5, C)}
    assert all(len({*row}) == 5 for row in drawn.tolist())
    assert len({tuple(row) for row in drawn.tolist()}) > 200
    with pytest.raises(ValueError, match="needs 22 concepts, got 20"):
        bank.draw_others(torch.zeros(1, 11, dtype=torch.int64))


def test_masked_concepts_are_not_replaced_by_random_ones():
    neck = make_neck(control="random_concepts", concept_threshold=1.0, noise_var=0.0).eval()
    feats = make_feats()
    first, second = neck(*feats), neck(*feats)
    assert torch.equal(first.tokens, second.tokens)  # all concepts are masked


@pytest.mark.parametrize(
    "settings",
    [{"selection": "none"}, {"mix": "append"}, {"mix": "drop"}, {"selection": "per_concept"}],
)
def test_initial_weights_do_not_depend_on_the_settings(settings):
    """Runs that are compared start with the same weights, also those of encoder and decoder."""
    torch.manual_seed(0)
    neck, following = PCMMixup(DV, DC, D, N).state_dict(), torch.rand(1)
    torch.manual_seed(0)
    other = PCMMixup(DV, DC, D, N, **settings).state_dict()
    assert torch.equal(torch.rand(1), following)
    shared = [key for key in neck.keys() & other.keys() if not key.startswith("matcher")]
    assert {"pos_embed", "patch_proj.weight", "norm.weight"} <= {*shared}
    assert all(torch.equal(neck[key], other[key]) for key in shared)


def test_all_pairs_select_all_patches():
    out = make_neck(num_pairs=N * 5).eval()(*make_feats())
    assert out.selected.all()
    assert out.slots.shape == (B, N)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_pairs": 46}, "`num_pairs` must be a whole number from 1 to 45 .* got `46`"),
        ({"num_pairs": 0.5}, "`num_pairs` must be a whole number from 1 to 45 .* got `0.5`"),
        (
            {"selection": "top_patches", "num_top_patches": 10},
            "`num_top_patches` must be a whole number from 1 to 9 .* got `10`",
        ),
        ({"selection": "random"}, "`random_ratio` must be above 0 .* got `None`"),
        ({"selection": "random", "random_ratio": 1.5}, "`random_ratio` must be .* got `1.5`"),
        ({"selection": "middle"}, "`selection` must be one of .* got `'middle'`"),
        ({"mix": "add"}, "`mix` must be one of .* got `'add'`"),
        ({"control": "fewer"}, "`control` must be one of .* got `'fewer'`"),
        ({"mix": "drop", "selection": "none"}, "`mix='drop'` has no effect with selection='none'"),
        (
            {"control": "random_patches", "selection": "none"},
            "`control='random_patches'` has no effect with selection='none'",
        ),
        (
            {"mix": "drop", "append_text_tokens": False},
            "`append_text_tokens=False` has no effect with mix='drop'",
        ),
        (
            {"mix": "drop", "control": "random_concepts"},
            "`control='random_concepts'` has no effect with mix='drop'",
        ),
    ],
)
def test_impossible_selections_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_neck(**settings)


def test_a_threshold_masks_concepts_out_of_the_affinity():
    neck = make_neck(concept_threshold=0.2)
    out = neck.eval()(*make_feats())
    masked = out.concept_probs <= 0.2
    assert masked.any()
    assert not masked.all()
    assert out.affinity.transpose(1, 2)[masked].abs().max() == 0
    assert out.affinity.transpose(1, 2)[~masked].abs().min() > 0


def test_noise_is_added_in_training_to_the_global_token_only():
    neck, feats = make_neck(noise_var=0.5), make_feats()
    clean = neck.eval()(*feats).tokens
    assert torch.equal(neck(*feats).tokens, clean)
    first, second = neck.train()(*feats), neck(*feats)
    assert not torch.allclose(first.tokens[:, 0], second.tokens[:, 0])
    assert torch.equal(first.tokens[:, 1:], second.tokens[:, 1:])
    # Concepts are retrieved by the feature without noise.
    assert torch.equal(first.concept_probs, second.concept_probs)


def test_a_checkpoint_contains_the_clip_head_but_no_concepts():
    neck = make_neck()
    state = neck.state_dict()
    assert {f"matcher.clip_head.{name}" for name in ("ln_weight", "ln_bias", "proj")} < set(state)
    assert not [key for key in state if "concept" in key]
    assert not [name for name, _ in neck.named_parameters() if "clip" in name]
    fresh = PCMMixup(DV, DC, D, N, dropout=0.0)
    assert fresh.needs_clip_head
    fresh.load_state_dict(state)
    assert not fresh.needs_clip_head
    fresh.set_concepts(WORDS, neck.concept_bank.embeddings)
    feats = make_feats()
    torch.testing.assert_close(fresh.eval()(*feats).tokens, neck.eval()(*feats).tokens)


def test_config_loads_concepts_and_clip_head_from_files(tmp_path):
    torch.manual_seed(2)
    save_concepts(tmp_path / "c.safetensors", WORDS, torch.randn(C, DC))
    head = make_head()
    save_file(head, tmp_path / "clip_head.safetensors")
    neck = MODELS.build(
        {
            "type": "pcm_plugin.PCMMixup",
            "patch_dim": DV,
            "clip_dim": DC,
            "num_patches": N,
            "concepts": tmp_path / "c.safetensors",
            "clip_head": tmp_path / "clip_head.safetensors",
        }
    )
    assert neck.concept_words == WORDS
    assert torch.equal(neck.matcher.clip_head.proj, head["proj"])
    assert neck.eval()(*make_feats()).tokens.shape[2] == 512


@pytest.mark.parametrize("selection", ["top_pairs", "per_concept", "top_patches", "random", "none"])
@pytest.mark.parametrize("mix", ["replace", "append", "drop"])
def test_every_parameter_has_a_gradient(selection, mix):
    mix = "replace" if selection == "none" else mix
    neck = make_neck(selection=selection, mix=mix, random_ratio=0.2, dropout=0.5).train()
    (neck(*make_feats()).tokens ** 2).sum().backward()
    assert all(parameter.grad is not None for parameter in neck.parameters())


def test_matching_does_not_depend_on_autocast():
    neck, feats = make_neck().eval(), make_feats()
    plain = neck(*feats)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = neck(*feats)
    assert torch.equal(half.affinity, plain.affinity)
    assert torch.equal(half.slots, plain.slots)


def test_global_prefix_returns_one_token():
    torch.manual_seed(0)
    neck = GlobalPrefix(DC, D, noise_var=0.1)
    _, feats = make_feats()
    out = neck.eval()(None, 3 * feats)
    assert out.tokens.shape == (B, 1, D)
    assert out.mask.all()
    torch.testing.assert_close(out.tokens, neck(None, feats).tokens)
    assert not torch.allclose(neck.train()(None, feats).tokens, out.tokens)


def test_errors_name_the_value_and_the_fix(tmp_path):
    feats = make_feats()
    neck = PCMMixup(DV, DC, D, N)
    with pytest.raises(UserError, match=r"no concepts.*build-concepts"):
        neck(*feats)
    neck.set_concepts(WORDS, torch.randn(C, DC))
    with pytest.raises(UserError, match=r"no CLIP head.*extract"):
        neck(*feats)
    with pytest.raises(ValueError, match=r"num_patches=7, .* got `\(4, 9, 12\)`"):
        make_neck(num_patches=7)(*feats)
    with pytest.raises(ValueError, match=r"`patch_feats` must be .* got `None`"):
        make_neck()(None, feats[1])
    with pytest.raises(ValueError, match="clip_dim=6"):
        make_neck(selection="none", clip_dim=6)(*feats)
    with pytest.raises(ValueError, match=r"clip_dim=8, got \(20, 5\)"):
        neck.set_concepts(WORDS, torch.randn(C, 5))
    with pytest.raises(ValueError, match="must be at most the 3 concepts, got `5`"):
        neck.set_concepts(WORDS[:3], torch.randn(3, DC))
    with pytest.raises(ValueError, match=r"`proj` .* must be \(12, 8\), got `\(12, 5\)`"):
        neck.set_clip_head({**make_head(), "proj": torch.zeros(DV, 5)})
    with pytest.raises(ValueError, match="`concepts` must be None for this PCMMixup"):
        make_neck(selection="none").set_concepts(WORDS, torch.randn(C, DC))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        PCMMixup(DV, DC, clip_head="nowhere")
    save_file({"proj": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other.safetensors must hold .* got \['proj'\]"):
        PCMMixup(DV, DC, clip_head=tmp_path / "other.safetensors")
