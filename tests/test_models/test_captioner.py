import pytest
import torch
import torch.nn.functional as F
from mmengine.dataset import default_collate
from mmengine.optim import OptimWrapper

from pcm_plugin.formats.vocabulary import Vocabulary
from pcm_plugin.models import PCMNet
from pcm_plugin.models.decoding import DecodingConfig
from pcm_plugin.registry import MODELS
from pcm_plugin.structures import DataSample
from tests.builders import build_clip

B, N, DV, DC, D = 4, 9, 12, 8, 16
WORDS = ["a", "the", "dog", "cat", "runs", "sits", "on", "under", "grass", "sofa", "red", "green"]
CAPTIONS = ["a dog runs", "the cat sits on the red sofa", "a cat", "the dog sits under a sofa"]


def make_config(**settings):
    sizes = {"embed_dims": D, "num_heads": 2, "ffn_dims": 32, "num_layers": 2}
    sizes |= {"attn_dropout": 0.0, "dropout": 0.0}
    return {
        "type": "pcm_plugin.PCMNet",
        "neck": {
            "type": "pcm_plugin.PCMMixup",
            "patch_dim": DV,
            "clip_dim": DC,
            "embed_dims": D,
            "num_patches": N,
            "noise_var": 0.001,
            "dropout": 0.0,
        },
        "encoder": {"type": "pcm_plugin.VisualSemanticEncoder", **sizes},
        "decoder": {"type": "pcm_plugin.SentenceDecoder", "output_dropout": 0.0, **sizes},
        "loss": {"type": "pcm_plugin.CLIPWeightedCELoss"},
        "vocabulary": Vocabulary(WORDS),
        "decoding": {"max_len": 10},
        **settings,
    }


def make_model(**settings):
    torch.manual_seed(0)
    model = MODELS.build(make_config(**settings))
    if model.neck.concept_bank is not None:
        model.neck.set_concepts([f"c{i}" for i in range(20)], torch.randn(20, DC))
        if model.neck.needs_clip_head:
            model.neck.set_clip_head(
                {
                    "ln_post.weight": torch.randn(model.neck.patch_dim),
                    "ln_post.bias": torch.randn(model.neck.patch_dim),
                    "proj": torch.randn(model.neck.patch_dim, DC),
                }
            )
    return model


@pytest.mark.parametrize("num_words", [9, 10, 11])
def test_captions_as_long_as_the_limit_train_all_targets(num_words):
    """With max_len=10, the end token fits after 9 words, but not after 10 or more."""
    model, (patch_feats, global_feats) = make_model(), make_feats().values()
    words = (WORDS * 2)[:num_words]
    captions = ["a dog", " ".join(words)] * 2
    encoded = model.eval().encode(patch_feats, global_feats)
    logits, targets = model.forward_decoder(encoded, captions)
    assert logits.shape[:2] == targets.shape == (B, 10)
    ids = [model.vocabulary.words.index(word) + 1 for word in words]
    assert targets[1].tolist() == [*ids, 0][:10]
    samples = [DataSample(gt_caption=c, clip_score=1.0) for c in captions]
    loss = model(
        patch_feats=patch_feats, global_feats=global_feats, data_samples=samples, mode="loss"
    )["loss"]
    expected = model.loss_module(logits, targets, torch.ones(B))
    torch.testing.assert_close(loss, expected)


def make_feats():
    torch.manual_seed(1)
    return {"patch_feats": torch.randn(B, N, DV), "global_feats": torch.randn(B, DC)}


def make_samples():
    samples = [DataSample() for _ in CAPTIONS]
    for i, (sample, caption) in enumerate(zip(samples, CAPTIONS, strict=True)):
        sample.image_id, sample.gt_caption, sample.clip_score = str(i), caption, 0.4 + 0.1 * i
    return samples


def make_batch():
    """Return a batch as a data loader does."""
    feats = make_feats()
    return default_collate(
        [
            {**{key: value[i] for key, value in feats.items()}, "data_samples": sample}
            for i, sample in enumerate(make_samples())
        ]
    )


@pytest.fixture(scope="module")
def trained():
    """Return a trained model with different captions per image; tests do not change it."""
    model = make_model().train()
    optimizer = OptimWrapper(torch.optim.Adam(model.parameters(), lr=0.01))
    for _ in range(60):
        model.train_step(make_batch(), optimizer)
    return model.eval()


@torch.no_grad()
def test_packed_slots_equal_all_text_slots(trained):
    """The released code has 1 + 2N slots and masks those that are not selected."""
    model, feats = trained, make_feats()
    encoded = model.encode(**feats)
    neck = model.neck
    concepts = F.normalize(neck.concept_bank.embeddings, dim=-1)[encoded.neck_out.concept_ids]
    texts = (encoded.neck_out.affinity / neck.matcher.temperature).softmax(-1) @ concepts
    slots = neck.text_proj(texts) + neck.pos_embed[:, 1:] + neck.type_embed.weight[1]
    full = torch.cat([encoded.neck_out.tokens[:, : 1 + N], neck.norm(F.relu(slots))], dim=1)
    full_mask = torch.cat([encoded.mask[:, : 1 + N], encoded.neck_out.selected], dim=1)
    assert not full_mask.all()
    full_memory = model.encoder(full, full_mask)
    torch.testing.assert_close(encoded.encoder_out[:, : 1 + N], full_memory[:, : 1 + N])

    ids = torch.randint(0, len(WORDS) + 1, (B, 6))
    torch.testing.assert_close(
        model.decoder(ids, encoded.encoder_out, encoded.mask),
        model.decoder(ids, full_memory, full_mask),
    )


@torch.no_grad()
def test_incremental_decoding_equals_teacher_forcing(trained):
    model = trained
    encoded = model.encode(**make_feats())
    ids = torch.randint(0, len(WORDS) + 1, (B, 7))
    expected = model.decoder(ids, encoded.encoder_out, encoded.mask)
    cache = model.decoder.start(encoded.encoder_out, encoded.mask)
    for t in range(7):
        logits = model.decoder.step(ids[:, t : t + 1], cache)
        torch.testing.assert_close(logits[:, 0], expected[:, t])


def test_packed_captions_have_the_same_logits_and_gradients_as_padded_ones():
    model = make_model().train()
    ids = torch.randint(0, len(WORDS) + 1, (B, 6))
    lengths = torch.tensor([6, 2, 4, 1])
    is_word = torch.arange(6) < lengths.unsqueeze(1)
    found = []
    for packed in (True, False):
        torch.manual_seed(0)
        model.zero_grad()
        encoded = model.encode(**make_feats())
        logits = model.decoder(ids, encoded.encoder_out, encoded.mask, lengths if packed else None)
        logits = logits if packed else logits[is_word]
        (logits * torch.arange(logits.numel()).view_as(logits).cos()).sum().backward()
        found.append([logits.detach(), *(p.grad for p in model.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_cache_grows_beyond_its_initial_capacity(trained):
    model = trained
    encoded = model.encode(**make_feats())
    words = torch.randint(0, len(WORDS) + 1, (15, B, 3))
    cache = model.decoder.start(encoded.encoder_out, encoded.mask)
    model.decoder.step(torch.zeros(B, 1, dtype=torch.long), cache)
    cache.reorder(torch.zeros(B, 3, dtype=torch.long))
    for word in words:
        logits = model.decoder.step(word, cache)
    history = torch.cat([torch.zeros(1, B, 3, dtype=torch.long), words])
    for beam in range(3):
        expected = model.decoder(history[:, :, beam].t(), encoded.encoder_out, encoded.mask)[:, -1]
        torch.testing.assert_close(logits[:, beam], expected)
    with pytest.raises(ValueError, match="must follow a step"):
        model.decoder.start(encoded.encoder_out, encoded.mask).reorder(
            torch.zeros(B, 3, dtype=torch.long)
        )


@torch.no_grad()
def test_the_cache_follows_the_beams(trained):
    model = trained
    encoded = model.encode(**make_feats())
    histories = torch.zeros(B, 1, 1, dtype=torch.long)
    cache = model.decoder.start(encoded.encoder_out, encoded.mask)
    logits = model.decoder.step(histories[:, :, -1], cache)
    for t, width in enumerate([3, 2, 3]):
        parents = torch.randint(0, histories.shape[1], (B, width))
        words = torch.randint(0, len(WORDS) + 1, (B, width))
        past = histories.gather(1, parents.unsqueeze(-1).expand(-1, -1, t + 1))
        histories = torch.cat([past, words.unsqueeze(-1)], dim=-1)
        cache.reorder(parents)
        logits = model.decoder.step(words, cache)
        for beam in range(width):
            expected = model.decoder(histories[:, beam], encoded.encoder_out, encoded.mask)[:, -1]
            torch.testing.assert_close(logits[:, beam], expected)


@torch.no_grad()
def test_a_beam_of_one_is_greedy(trained, monkeypatch):
    monkeypatch.setattr(trained, "decoding", DecodingConfig(beam_size=1, max_len=10))
    model, feats = trained, make_feats()
    samples = model(**feats, mode="predict")
    encoded = model.encode(**feats)
    for image, sample in enumerate(samples):
        ids, score = [0], 0.0
        while len(ids) <= 10:
            one = slice(image, image + 1)
            logits = model.decoder(
                torch.tensor([ids]), encoded.encoder_out[one], encoded.mask[one]
            )[0, -1]
            word = int(logits.argmax())
            score += float(logits.log_softmax(-1)[word])
            ids.append(word)
            if word == 0:
                break
        assert sample.pred_caption == model.vocabulary.decode(ids[1:])
        assert sample.pred_score == pytest.approx(score, rel=1e-4)


def test_captions_do_not_depend_on_the_batch(trained):
    model, feats = trained, make_feats()
    together = [sample.pred_caption for sample in model(**feats, mode="predict")]
    alone = [
        model(**{key: value[i : i + 1] for key, value in feats.items()}, mode="predict")[0]
        for i in range(B)
    ]
    assert [sample.pred_caption for sample in alone] == together
    assert len(set(together)) > 1


def test_train_and_val_steps_of_mmengine(trained):
    fresh = make_model().eval()
    losses = [
        model(**make_feats(), data_samples=make_samples(), mode="loss")["loss"]
        for model in (fresh, trained)
    ]
    assert losses[1] < losses[0] / 2
    samples = trained.val_step(make_batch())
    assert [sample.image_id for sample in samples] == ["0", "1", "2", "3"]
    for sample, caption in zip(samples, CAPTIONS, strict=True):
        assert sample.gt_caption == caption
        assert sample.pred_score < 0
        assert sample.pred_concept_ids.shape == sample.pred_concept_probs.shape == (5,)
        assert 1 <= len(sample.pred_selected_patches) <= 5
    # Inference appends texts where training replaced patches, so not all captions must match.
    right = [sample.pred_caption == sample.gt_caption for sample in samples]
    assert sum(right) >= 2


@pytest.mark.parametrize("selection", ["top_pairs", "none"])
def test_every_parameter_is_used_in_training(selection):
    config = make_config()
    config["neck"]["selection"] = selection
    model = make_model(neck=config["neck"]).train()
    model(**make_feats(), data_samples=make_samples(), mode="loss")["loss"].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_the_loss_under_autocast_is_float32():
    model, feats = make_model().eval(), make_feats()
    plain = model(**feats, data_samples=make_samples(), mode="loss")["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(**feats, data_samples=make_samples(), mode="loss")["loss"]
        samples = model(**feats, mode="predict")
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, plain, rtol=0.05, atol=0)
    assert all(isinstance(sample.pred_caption, str) for sample in samples)


def test_the_clip_weight_is_computed_from_the_samples():
    model, feats, samples = make_model().eval(), make_feats(), make_samples()
    model.loss_module.gamma_type = "none"
    full = model(**feats, data_samples=samples, mode="loss")["loss"]
    for sample in samples:
        sample.clip_score /= 2
    half = model(**feats, data_samples=samples, mode="loss")["loss"]
    torch.testing.assert_close(half, full / 2)
    del samples[0].clip_score
    with pytest.raises(ValueError, match="use_clip_weight=False"):
        model(**feats, data_samples=samples, mode="loss")


def test_tensor_mode_returns_the_logits_of_the_captions():
    model, feats = make_model().eval(), make_feats()
    logits = model(**feats, data_samples=make_samples())
    assert logits.shape == (B, 8, len(WORDS) + 1)
    _, targets = model.vocabulary.encode_batch(CAPTIONS, 10)
    scores = torch.tensor([sample.clip_score for sample in make_samples()])
    loss = model(**feats, data_samples=make_samples(), mode="loss")["loss"]
    torch.testing.assert_close(model.loss_module(logits, targets, scores), loss)


def test_text_only_training_needs_no_patches():
    neck = {"type": "pcm_plugin.GlobalPrefix", "clip_dim": DC, "embed_dims": D}
    model = make_model(neck=neck)
    feats = {"global_feats": make_feats()["global_feats"]}
    loss = model(**feats, data_samples=make_samples(), mode="loss")["loss"]
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    samples = model.eval()(**feats, mode="predict")
    assert "pred_concept_ids" not in samples[0]


def test_images_and_their_features_give_the_same_captions(tmp_path):
    clip = build_clip(tmp_path / "clip")
    backbone = {"type": "pcm_plugin.OpenCLIPBackbone", "model_name": clip}
    config = make_config(backbone=backbone)
    config["neck"].update(patch_dim=16, num_patches=16)
    model = make_model(**config).eval()
    assert torch.equal(model.neck.matcher.clip_head.proj, model.backbone.clip_head()["proj"])
    images = torch.randn(B, 3, 16, 16)
    patches, feats = model.backbone(images)
    seen = model(images=images, mode="predict")
    stored = model(patch_feats=patches, global_feats=feats, mode="predict")
    assert [s.pred_caption for s in seen] == [s.pred_caption for s in stored]
    # A checkpoint trained on a store fits the model with a backbone, and the other way round.
    config.pop("backbone")
    model.load_state_dict(make_model(**config).state_dict())


@pytest.mark.parametrize("kind", ["plain", "siglip"])
def test_a_backbone_whose_patches_the_neck_does_not_expect_is_refused(tmp_path, kind):
    clip, joint = build_clip(tmp_path / "clip", kind=kind), kind == "siglip"
    config = make_config(backbone={"type": "pcm_plugin.OpenCLIPBackbone", "model_name": clip})
    config["neck"].update(
        patch_dim=16, clip_dim=16, num_patches=16, patches_in_joint_space=not joint
    )
    with pytest.raises(ValueError, match=f"set patches_in_joint_space={joint}"):
        MODELS.build(config)
    # A neck without selection accepts patches of any kind.
    MODELS.build(config | {"neck": config["neck"] | {"selection": "none"}})


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("decoder", "vocab_size", 7, "`decoder.vocab_size` must be 13, .* got `7`: omit"),
        ("encoder", "num_heads", 3, "must divide embed_dims=16, got `3`"),
        ("encoder", "embed_dims", 32, "'neck': 16, 'encoder': 32, 'decoder': 16"),
        ("decoder", "embed_dims", 15, "must be even, got `15`"),
    ],
)
def test_mismatched_sizes_are_refused(part, key, value, message):
    config = make_config()
    config[part][key] = value
    with pytest.raises(ValueError, match=message):
        MODELS.build(config)


def test_an_unknown_mode_is_refused_before_the_network_runs(monkeypatch):
    model = make_model()
    monkeypatch.setattr(model, "encode", None)
    with pytest.raises(ValueError, match=r"`mode` must be .* got `'caption'`"):
        model(**make_feats(), mode="caption")


@pytest.mark.parametrize(
    ("decoding", "message"),
    [
        ({"beam_size": 0}, "`beam_size` must be at least 1, got `0`"),
        ({"num_captions": 4}, "`num_captions` must be from 1 to beam_size=3, got `4`"),
        ({"min_len": 20}, "`min_len` must be from 0 to less than max_len=20.* got `20`"),
        ({"length_penalty": float("inf")}, "`length_penalty` must be a finite number, got `inf`"),
        ({"rerank_weight": float("nan")}, "`rerank_weight` must be a finite number, got `nan`"),
        ({"beam_sise": 5}, "got `beam_sise`; did you mean `beam_size`"),
        ({"rerank_weight": 1.0}, "`rerank_weight` must be 0 without a backbone, got `1.0`"),
        ({"rerank": "ranks"}, "`rerank` must be 'sum' without a backbone, got `'ranks'`: set back"),
        ({"rerank": "rank"}, "`rerank` must be one of sum, ranks, got `'rank'`"),
        ({"rerank_clip": "RN50"}, "`rerank_clip` has no effect with rerank='sum', got `RN50`"),
        (
            {"rerank_clip_pretrained": "x"},
            "no effect without rerank_clip, got `x`: set rerank_clip",
        ),
        ({"rerank": "ranks", "rerank_weight": 1.0}, "no effect with rerank='ranks', got `1.0`"),
    ],
)
def test_decoding_settings_are_checked(decoding, message):
    with pytest.raises(ValueError, match=message):
        make_model(decoding=decoding)


def test_encode_separates_the_output_of_the_neck(trained):
    """The mask belongs to the encoder output; the neck output has its own mask."""
    encoded, neck_out = trained.encode(**make_feats()), trained.neck(**make_feats())
    assert encoded.mask.shape == encoded.encoder_out.shape[:2]
    assert torch.equal(encoded.neck_out.tokens, neck_out.tokens)
    assert not torch.allclose(encoded.encoder_out, neck_out.tokens)


def test_errors_name_the_value_and_the_fix(tmp_path):
    model, feats, samples = make_model(), make_feats(), make_samples()
    with pytest.raises(ValueError, match="no backbone to encode `images`: set backbone="):
        model(images=torch.zeros(1, 3, 16, 16), mode="predict")
    with pytest.raises(ValueError, match="got no input: pass `images`"):
        model(mode="predict")
    with pytest.raises(ValueError, match=r"`data_samples` must be a list .* got `None`"):
        model(**feats, mode="loss")
    samples[1].gt_caption = ["one", "two"]
    with pytest.raises(ValueError, match=r"got `\['one', 'two'\]`: .*test_mode=False"):
        model(**feats, data_samples=samples, mode="loss")
    with pytest.raises(ValueError, match="`loss` must be set to train, got `None`"):
        make_model(loss=None)(**feats, data_samples=make_samples(), mode="loss")
    config = make_config()
    config["decoder"]["max_positions"] = 4
    with pytest.raises(ValueError, match=r"`max_positions` must be at least .* got `4`"):
        make_model(**config)(**feats, data_samples=make_samples(), mode="loss")
    neck = {"type": "pcm_plugin.GlobalPrefix", "clip_dim": DC + 1, "embed_dims": D}
    with pytest.raises(ValueError, match=rf"clip_dim={DC + 1}"):
        make_model(neck=neck)(**feats, mode="predict")
    with pytest.raises(FileNotFoundError, match=r"no\.txt"):
        PCMNet({}, {}, {}, tmp_path / "no.txt")
