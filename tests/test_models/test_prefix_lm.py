import itertools
import json
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from pcm_plugin.apis import CaptionInferencer
from pcm_plugin.engine.checkpoints import load_weights
from pcm_plugin.errors import UserError
from pcm_plugin.models.captioner_file import load_captioner, save_captioner
from pcm_plugin.models.captioner_settings import check_same_captioner, write_decoding
from pcm_plugin.models.captioners import Captioner
from pcm_plugin.models.decoding import DecodingConfig
from pcm_plugin.models.encoders import PrefixMapper
from pcm_plugin.models.functional.beam_search import beam_search
from pcm_plugin.registry import MODELS
from pcm_plugin.structures import DataSample
from tests.builders import build_clip, build_tokenizer, save_gpt2_config

B, N, DV, DC, D = 4, 9, 12, 8, 16
CAPTIONS = ["a dog runs.", "the red cat stands next to the house.", "a cat", "the car in the house"]
CONCEPTS = ["dog", "cat", "car", "tree", "red house"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a GPT-2 config with 23 tokens. Large random weights make its predictions distinct."""
    path = tmp_path_factory.mktemp("gpt2")
    tokenizer = build_tokenizer()
    return save_gpt2_config(path, tokenizer)


NECKS = {
    "global": dict(type="pcm_plugin.GlobalPrefix", clip_dim=DC, embed_dims=D, dropout=0.0),
    "pcm": dict(
        type="pcm_plugin.PCMMixup",
        patch_dim=DV,
        clip_dim=DC,
        embed_dims=D,
        num_patches=N,
        top_concepts=3,
        num_pairs=4,
        temperature=0.1,
        dropout=0.0,
    ),
}


PROMPT = dict(type="pcm_plugin.EntityPrompt", temperature=0.2, concept_threshold=0.15)


def make_model(folder, neck="global", seed=0, **settings):
    torch.manual_seed(seed)
    mapper = dict(type="pcm_plugin.PrefixMapper", embed_dims=D, prefix_length=3, num_layers=2)
    config = dict(
        type="pcm_plugin.PrefixCaptioner",
        neck=NECKS[neck],
        mapper=mapper | dict(num_heads=2),
        language_model=str(folder),
        pretrained=False,
        loss=dict(type="pcm_plugin.CLIPWeightedCELoss", gamma_type="none", label_smoothing=0.0),
        entity_prompt=PROMPT,
        decoding=dict(beam_size=3, max_len=8),
    )
    model = MODELS.build(config | settings)
    embeddings = torch.randn(len(CONCEPTS), DC)
    if model.entity_prompt is not None:
        model.entity_prompt.concepts.set_concepts(CONCEPTS, embeddings)
    if neck == "pcm":
        model.neck.set_concepts(CONCEPTS, embeddings)
        model.neck.set_clip_head(
            {
                "ln_post.weight": torch.randn(DV),
                "ln_post.bias": torch.randn(DV),
                "proj": torch.randn(DV, DC),
            }
        )
    return model.eval()


def make_feats(count=B):
    torch.manual_seed(1)
    return {"patch_feats": torch.randn(count, N, DV), "global_feats": torch.randn(count, DC)}


def make_samples():
    samples = [DataSample() for _ in CAPTIONS]
    for sample, caption in zip(samples, CAPTIONS, strict=True):
        sample.gt_caption, sample.clip_score = caption, 1.0
    return samples


def one(feats, i):
    return {key: value[i : i + 1] for key, value in feats.items()}


def vse_settings():
    """Return the settings of PCM-Net's released code: VSE, global token and MLP."""
    return dict(
        encoder=dict(
            type="pcm_plugin.VisualSemanticEncoder",
            embed_dims=D,
            num_layers=2,
            num_heads=2,
            ffn_dims=24,
            attn_dropout=0.0,
            dropout=0.0,
        ),
        mapper=dict(type="pcm_plugin.MLPPrefixMapper", embed_dims=D, prefix_length=3),
    )


@pytest.fixture(scope="module", params=["global", "pcm", "pcm_vse"])
def model(request, folder):
    neck, *form = request.param.split("_")
    return make_model(folder, neck, **(vse_settings() if form else {}))


def test_the_mapper_respects_the_mask():
    torch.manual_seed(0)
    mapper = MODELS.build(
        dict(type="pcm_plugin.PrefixMapper", out_dims=6, embed_dims=8, num_heads=2, num_layers=2)
    )
    tokens, mask = torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)
    mask[0, 3:] = False
    for mode in (True, False):
        prefix = mapper.train(mode)(tokens, mask)
        assert prefix.shape == (2, 10, 6)
        changed = tokens.clone()
        changed[0, 3:] *= -5
        torch.testing.assert_close(mapper(changed, mask), prefix)
        changed[0, 2] *= -5
        assert not torch.allclose(mapper(changed, mask)[0], prefix[0])
        torch.testing.assert_close(mapper(tokens[:1, :3], mask[:1, :3]), prefix[:1])


def test_the_mapper_refuses_invalid_sizes():
    with pytest.raises(ValueError, match="num_heads=3"):
        MODELS.build(dict(type="pcm_plugin.PrefixMapper", out_dims=6, embed_dims=8, num_heads=3))


@torch.no_grad()
def test_logits_are_those_of_the_language_model_after_prefix_and_prompt(model):
    """Compared with the forward pass of the language model per image, without padding."""
    feats = make_feats()
    encoded = model.encode(**feats)
    assert not encoded.mask.all()  # prompts of several lengths
    logits, targets = model.forward_decoder(encoded, CAPTIONS)
    packed, same = model.forward_decoder(encoded, CAPTIONS, packed=True)
    assert torch.equal(same, targets)
    torch.testing.assert_close(packed, logits[targets >= 0])
    end = model.tokenizer.eos_token_id
    for i, caption in enumerate(CAPTIONS):
        ids = model.tokenizer(caption.rstrip("."), add_special_tokens=False).input_ids
        ids = [*ids[:7], end]
        assert targets[i][targets[i] >= 0].tolist() == ids
        tokens, mask = super(type(model), model).encode(**one(feats, i))[:2]
        if model.encoder is not None:
            tokens = model.encoder(tokens, mask)
        prompt = model.entity_prompt(feats["global_feats"][i : i + 1])[0]
        spoken = model.tokenizer(prompt, add_special_tokens=False).input_ids + ids[:-1]
        embeds = model.lm.get_input_embeddings()(torch.tensor([spoken]))
        inputs = torch.cat([model.mapper(tokens, mask), embeds], dim=1)
        expected = model.lm(inputs_embeds=inputs).logits[0, -len(ids) :]
        torch.testing.assert_close(logits[i, : len(ids)], expected, rtol=1e-4, atol=1e-4)


def test_captions_do_not_depend_on_the_batch(model):
    feats = make_feats(6)
    for beam_size in (1, 3):
        decoding = DecodingConfig(beam_size, max_len=8, num_captions=min(2, beam_size))
        together = model.generate(model.encode(**feats), decoding)
        for i, found in enumerate(together):
            alone = model.generate(model.encode(**one(feats, i)), decoding)[0]
            assert [f.caption for f in found] == [f.caption for f in alone]
            assert [f.log_prob for f in found] == pytest.approx(
                [f.log_prob for f in alone], rel=1e-4
            )
        assert len({found[0].caption for found in together}) > 1


def log_probs_of(model, encoded, i, ids):
    """Return the log-probabilities of token sequences (n, T) after prefix and prompt of image i."""
    prefix = encoded.encoder_out[i, encoded.mask[i]].expand(len(ids), -1, -1)
    embeds = model.lm.get_input_embeddings()(ids)
    logits = model.lm(inputs_embeds=torch.cat([prefix, embeds], dim=1)).logits
    log_probs = logits[:, prefix.shape[1] - 1 : -1].log_softmax(-1)
    return log_probs.gather(2, ids.unsqueeze(2)).sum((1, 2)).tolist()


@torch.no_grad()
def test_wide_beams_equal_exhaustive_search(model):
    encoded = model.encode(**make_feats())
    end, size = model.tokenizer.eos_token_id, len(model.tokenizer)
    decoding = DecodingConfig(beam_size=size, max_len=2, num_captions=5)
    for i, found in enumerate(model.generate(encoded, decoding)):
        every = torch.tensor([*itertools.product(set(range(size)) - {end}, range(size))])
        scores = log_probs_of(model, encoded, i, every)
        scores = sorted(scores + log_probs_of(model, encoded, i, torch.tensor([[end]])))
        assert [f.log_prob for f in found] == pytest.approx(scores[:-6:-1], rel=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("beam_size", [1, 3])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_search_with_a_cache_equals_search_without(model, beam_size, length_penalty):
    """The reference computes the whole sequence again at each step."""
    encoded = model.encode(**make_feats(12))
    end = model.tokenizer.eos_token_id
    history = None

    def step(words, parents):
        nonlocal history
        width = words.shape[1]
        if parents is not None:
            past = parents.unsqueeze(-1).expand(-1, -1, history.shape[-1])
            history = torch.cat([history.gather(1, past), words.unsqueeze(-1)], dim=-1)
        else:
            history = words.new_zeros(len(encoded.encoder_out), 1, 0)
        ids = history.flatten(0, 1)
        targets = torch.cat([ids, ids.new_zeros(len(ids), 1)], dim=1)
        rows = (part.repeat_interleave(width, 0) for part in encoded[:2])
        return model._forward_lm(*rows, targets)[:, -1].unflatten(0, (-1, width))

    slow = beam_search(step, 12, beam_size, 6, eos_id=end, length_penalty=length_penalty)
    decoding = DecodingConfig(beam_size, max_len=6, length_penalty=length_penalty)
    for i, (best,) in enumerate(model.generate(encoded, decoding)):
        assert best.caption == model.tokenizer.decode(slow.ids[i, 0], skip_special_tokens=True)
        assert best.log_prob == pytest.approx(float(slow.log_probs[i, 0].sum()), rel=1e-4)
        if length_penalty:
            assert best.score == pytest.approx(float(slow.scores[i, 0]), rel=1e-4)


@torch.no_grad()
def test_greedy_captions_equal_those_of_transformers(model):
    encoded = model.encode(**make_feats(12))
    end = model.tokenizer.eos_token_id
    ids = model.lm.generate(
        inputs_embeds=encoded.encoder_out,
        attention_mask=encoded.mask.long(),
        max_new_tokens=6,
        do_sample=False,
        eos_token_id=end,
        pad_token_id=end,
    )
    found = model.generate(encoded, DecodingConfig(1, max_len=6))
    texts = model.tokenizer.batch_decode(ids, skip_special_tokens=True)
    assert [best.caption for (best,) in found] == texts
    assert len(set(texts)) > 3


@torch.no_grad()
def test_a_length_penalty_prefers_longer_captions(model):
    encoded = model.encode(**make_feats(12))
    lengths = []
    for length_penalty in (0.0, 1.0):
        decoding = DecodingConfig(3, max_len=8, num_captions=2, length_penalty=length_penalty)
        found = model.generate(encoded, decoding)
        lengths.append(sum(len(own[0].caption.split()) for own in found))
        for own in found:
            scores = [f.log_prob if f.score is None else f.score for f in own]
            assert scores == sorted(scores, reverse=True)
    assert lengths[1] > lengths[0]


def test_lengths(model):
    encoded = model.encode(**make_feats())
    end = model.tokenizer.eos_token_id
    bias = torch.zeros(len(model.tokenizer))
    bias[model.tokenizer.all_special_ids] = -100.0  # they are not part of captions
    bias[end] = 100.0
    head = model.lm.get_output_embeddings()
    hook = head.register_forward_hook(lambda module, inputs, logits: logits + bias)
    for beam_size in (1, 3):
        found = model.generate(encoded, DecodingConfig(beam_size, max_len=8))
        assert [f.caption for (f,) in found] == [""] * B
        found = model.generate(encoded, DecodingConfig(beam_size, max_len=8, min_len=3))
        assert [len(f.caption.split()) for (f,) in found] == [3] * B
    bias[end] = -100.0
    for beam_size in (1, 3):
        found = model.generate(encoded, DecodingConfig(beam_size, max_len=4, min_len=3))
        assert [len(f.caption.split()) for (f,) in found] == [4] * B
    hook.remove()


def test_all_beams_are_returned_for_re_ranking(model):
    encoded = model.encode(**make_feats())
    found = model.generate(encoded, DecodingConfig(beam_size=4, max_len=5, rerank_weight=1.0))
    assert [len(own) for own in found] == [4] * B
    for own in found:
        scores = [f.log_prob for f in own]
        assert scores == sorted(scores, reverse=True)


def test_the_mlp_maps_the_global_token_as_in_the_released_code(folder):
    """The reference is a reimplementation of the released MapperEncoder."""
    model = make_model(folder, "pcm", entity_prompt=None, **vse_settings())
    feats = make_feats()
    encoded = model.encode(**feats)
    prefix = encoded.encoder_out
    assert prefix.shape == (B, 3, 12)
    assert encoded.mask.shape == (B, 3)
    assert encoded.neck_out.slots.shape == (B, 4)  # real images keep their patches and get texts
    tokens = model.neck(**feats)
    first, _, second = model.mapper.layers
    assert first.weight.shape == (3 * 12 // 2, D)
    token = model.encoder(tokens.tokens, tokens.mask)[:, 0]
    expected = (token @ first.weight.T + first.bias).tanh() @ second.weight.T + second.bias
    torch.testing.assert_close(prefix, expected.view(B, 3, 12))
    # The other tokens influence the prefix through the encoder.
    changed = feats | {"patch_feats": feats["patch_feats"].flip(1)}
    assert not torch.allclose(model.encode(**changed)[0], prefix)
    no_encoder = make_model(folder, "pcm", entity_prompt=None, mapper=vse_settings()["mapper"])
    torch.testing.assert_close(no_encoder.encode(**changed)[0], no_encoder.encode(**feats)[0])
    with pytest.raises(ValueError, match="`prefix_length` must be at least 1, got `0`"):
        MODELS.build(dict(type="pcm_plugin.MLPPrefixMapper", out_dims=6, prefix_length=0))
    wide = vse_settings()
    wide["encoder"]["embed_dims"] = 8
    with pytest.raises(ValueError, match=r"`encoder.embed_dims` must be the neck's 16, got `8`"):
        make_model(folder, "pcm", **wide)


@pytest.mark.parametrize("form", ["queries", "vse"])
def test_training_reduces_the_loss(folder, form):
    model = make_model(folder, "pcm", **(vse_settings() if form == "vse" else {})).train()
    optimizer = OptimWrapper(torch.optim.Adam(model.parameters(), lr=0.01))
    feats = make_feats()
    losses = []
    for _ in range(60):
        loss = model(**feats, data_samples=make_samples(), mode="loss")["loss"]
        optimizer.update_params(loss)
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
    samples = model.eval()(**feats, data_samples=make_samples(), mode="predict")
    wanted = [" ".join(caption.rstrip(".").split()[:7]) for caption in CAPTIONS]
    assert sum(s.pred_caption == c for s, c in zip(samples, wanted, strict=True)) >= 2
    assert samples[0].pred_concept_ids.shape == (3,)


@pytest.mark.parametrize("neck", ["global", "pcm", "pcm_vse"])
@pytest.mark.parametrize("freeze_lm", [False, True])
def test_gradients(folder, neck, freeze_lm):
    neck, *form = neck.split("_")
    settings = vse_settings() if form else {}
    model = make_model(folder, neck, freeze_lm=freeze_lm, **settings).train()
    model(**make_feats(), data_samples=make_samples(), mode="loss")["loss"].backward()
    for name, value in model.named_parameters():
        assert value.requires_grad == (not freeze_lm or not name.startswith("lm."))
        assert (value.grad is not None) == value.requires_grad, name
    assert model.lm.training != freeze_lm
    assert model.mapper.training


def test_the_prompt_names_the_most_probable_concepts(folder):
    model = make_model(folder, entity_prompt=PROMPT | dict(concept_threshold=0.3))
    model.entity_prompt.concepts.set_concepts(["dog", "big cat", "car"], torch.eye(3, DC))
    seen = torch.zeros(4, DC)
    seen[0, :2] = 1.0
    seen[1, 1] = 0.5
    seen[2, :3] = torch.tensor([1.0, 2.0, 3.0])
    seen[3, 5] = 1.0  # equally similar to all concepts
    assert model.entity_prompt(seen) == [
        "There are dog, big cat in image.",
        "There are big cat in image.",
        "There are car in image.",
        "There are dog, big cat, car in image.",
    ]
    model.entity_prompt.concept_threshold = 0.5
    assert model.entity_prompt(seen[3:]) == ["There are something in image."]
    assert model.entity_prompt.concepts.words == ["dog", "big cat", "car"]
    assert not any("concepts" in key for key in model.state_dict())


def test_without_a_prompt_the_sequence_is_the_prefix(folder):
    model = make_model(folder, entity_prompt=None)
    encoded = model.encode(**make_feats())
    assert encoded.encoder_out.shape == (B, 3, 12)
    assert encoded.mask.all()


def test_text_only_training_needs_no_patches(folder):
    model = make_model(folder).train()
    feats = make_feats()["global_feats"]
    loss = model(global_feats=feats, data_samples=make_samples(), mode="loss")["loss"]
    assert loss.isfinite()


def test_weights_and_tokenizer_of_a_folder(folder, tmp_path):
    first = make_model(folder)
    first.lm.save_pretrained(tmp_path)
    first.tokenizer.save_pretrained(tmp_path)
    again = make_model(tmp_path, pretrained=True, seed=5)
    for key, value in first.lm.state_dict().items():
        assert torch.equal(again.lm.state_dict()[key], value), key
    other = make_model(tmp_path, pretrained=False, seed=5)
    assert not torch.equal(other.lm.transformer.wte.weight, first.lm.transformer.wte.weight)


def test_missing_files_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`no/such/folder`.*pcm build-language-model"):
        make_model("no/such/folder")
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        make_model(tmp_path)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json"):
        make_model(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no weights .*pretrained=False"):
        make_model(folder, pretrained=True)
    with pytest.raises(FileNotFoundError, match="no concept file at nowhere"):
        make_model(folder, entity_prompt=PROMPT | dict(concepts="nowhere"))
    with pytest.raises(ValueError, match=r"`template` must contain {} .* got `'Look'`"):
        make_model(folder, entity_prompt=PROMPT | dict(template="Look"))
    with pytest.raises(ValueError, match=r"neck's embed_dims=16 .* got `embed_dims=8`"):
        make_model(folder, mapper=dict(type="pcm_plugin.PrefixMapper", embed_dims=8))
    model = make_model(folder)
    model.entity_prompt.concepts.embeddings = torch.zeros(0, DC)
    with pytest.raises(UserError, match="the entity prompt has no concepts"):
        model.encode(**make_feats())


def test_captions_must_fit_into_the_positions(folder):
    model = make_model(folder, decoding=dict(max_len=61), entity_prompt=None)
    encoded = model.encode(**make_feats())
    too_long = r"max_len=63 must fit into the language model's 64 positions, got `65`"
    with pytest.raises(ValueError, match=too_long):
        make_model(folder, decoding=dict(max_len=63), entity_prompt=None).forward_decoder(
            encoded, ["dog"] * B
        )
    with pytest.raises(ValueError, match=too_long):
        model.generate(encoded, DecodingConfig(2, max_len=63))
    assert model.forward_decoder(encoded, ["dog " * 90] * B)[1].shape == (B, 61)
    model.generate(encoded, DecodingConfig(2, max_len=62, min_len=61))


def test_blocks_of_the_mapper_are_initialized_independently():
    mapper = PrefixMapper(8, 8, prefix_length=2, num_layers=3, num_heads=2)
    one, two, three = (block.linear1.weight for block in mapper.blocks)
    assert not torch.equal(one, two)
    assert not torch.equal(two, three)


def test_tokenizer_and_model_must_fit(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 20}))
    with pytest.raises(ValueError, match="23 tokens, but the model only 20"):
        make_model(tmp_path)


def test_inferencer_captions_with_config_and_checkpoint(folder, tmp_path):
    from pcm_plugin.formats.concept_set import save_concepts

    save_concepts(tmp_path / "concepts.safetensors", CONCEPTS, torch.randn(len(CONCEPTS), DC))
    clip = dict(model_name=build_clip(tmp_path / "clip"), pretrained=None, pool=1)
    config = dict(
        type="pcm_plugin.PrefixCaptioner",
        neck=NECKS["global"],
        mapper=dict(
            type="pcm_plugin.PrefixMapper", embed_dims=D, prefix_length=3, num_layers=1, num_heads=2
        ),
        language_model=str(folder),
        pretrained=False,
        entity_prompt=dict(
            type="pcm_plugin.EntityPrompt", concepts=str(tmp_path / "concepts.safetensors")
        ),
        decoding=dict(max_len=6),
    )
    torch.manual_seed(3)
    trained = MODELS.build(config)
    torch.save({"state_dict": trained.state_dict(), "meta": {}}, tmp_path / "epoch_1.pth")
    inferencer = CaptionInferencer(
        Config(dict(model=config, clip=clip)),
        tmp_path / "epoch_1.pth",
        device="cpu",
        show_progress=False,
    )
    pictures = [Image.new("RGB", (16, 16), color) for color in ("red", "navy", "white")]
    found = inferencer(pictures)["predictions"]
    feats = inferencer.model.extract_feat(
        torch.stack([inferencer._init_pipeline()(p) for p in pictures])
    )
    samples = trained.eval()(global_feats=feats[1], mode="predict")
    assert [f["caption"] for f in found] == [s.pred_caption for s in samples]
    assert [f["log_prob"] for f in found] == pytest.approx(
        [s.pred_score for s in samples], rel=1e-3
    )
    again = inferencer(pictures, num_captions=2, rerank_weight=1.0)["predictions"]
    assert [len(f["captions"]) for f in again] == [2, 2, 2]


def settings_of(folder, **changes):
    """Return the config of a captioner as :func:`make_model` builds it, with paths of training."""
    mapper = dict(type="pcm_plugin.PrefixMapper", embed_dims=D, prefix_length=3, num_layers=2)
    return dict(
        type="pcm_plugin.PrefixCaptioner",
        neck=NECKS["global"],
        mapper=mapper | dict(num_heads=2),
        language_model=str(folder),
        pretrained=False,
        entity_prompt=PROMPT
        | dict(concepts="gone.safetensors", caption_entities="gone.txt", entity_aliases={"a": "b"}),
        decoding=dict(beam_size=3, max_len=8),
        **changes,
    )


def test_settings_in_a_file_change_the_defaults_of_prefix_captioners(folder, tmp_path):
    settings = settings_of(folder)
    settings["decoding"] = {"beam_size": 3}
    model = MODELS.build({**settings, "entity_prompt": None})
    settings["entity_prompt"] = None
    path = tmp_path / "captioner.safetensors"
    save_captioner(path, model, settings, {"model_name": build_clip(tmp_path / "clip")})
    check_same_captioner(path, model, settings)
    write_decoding(path, {"min_len": 25})
    assert load_captioner(path).decoding == DecodingConfig(beam_size=3, min_len=25, max_len=30)
    with pytest.raises(UserError, match="`min_len` must be from 0 to less than max_len=30"):
        write_decoding(path, {"min_len": 30})


@pytest.mark.parametrize("half", [False, True])
def test_one_file_holds_weights_language_model_and_entities(folder, tmp_path, half):
    model, settings = make_model(folder), settings_of(folder, freeze_lm=True)
    path = tmp_path / "captioner.safetensors"
    save_captioner(path, model, settings, {"model_name": build_clip(tmp_path / "clip")}, half=half)
    again = load_captioner(path)
    for key, value in model.state_dict().items():
        expected = value.half().float() if half else value
        assert torch.equal(again.state_dict()[key], expected), key
    assert again.entity_prompt.concepts.words == CONCEPTS
    assert again.stop_ids == model.stop_ids
    assert again.decoding == model.decoding
    feats = make_feats()
    assert again.entity_prompt(feats["global_feats"]) == model.entity_prompt(feats["global_feats"])
    if not half:
        captions, expected = (
            [sample.pred_caption for sample in each(**feats, mode="predict")]
            for each in (again, model)
        )
        assert captions == expected
        assert len(set(captions)) > 1
    for text in ("a dog runs next to the red cat.", " house"):
        ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert again.tokenizer(text, add_special_tokens=False)["input_ids"] == ids
        assert again.tokenizer.decode(ids) == model.tokenizer.decode(ids)
    unknown = again.decoding.updated({"include": ["zebra"]})
    with pytest.raises(UserError, match="cannot generate 'zebra'"):
        again.predict(**feats, decoding=unknown)
    # The output embeddings are the input embeddings, and are stored once.
    with safe_open(path, "pt") as file:
        stored = set(file.keys())
    assert model.state_dict().keys() - stored == {"lm.lm_head.weight"}
    other = make_model(folder, seed=7)
    load_weights(other, str(path))
    assert torch.equal(other.lm.lm_head.weight, again.lm.lm_head.weight)


def test_a_file_without_a_tensor_is_refused(folder, tmp_path):
    path = tmp_path / "captioner.safetensors"
    clip = {"model_name": build_clip(tmp_path / "clip")}
    save_captioner(path, make_model(folder), settings_of(folder), clip)
    with safe_open(path, "pt") as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    del tensors["lm.transformer.wte.weight"]
    save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match="does not match its own settings"):
        load_captioner(path)
    with pytest.raises(ValueError, match=r"missing \['lm.transformer.wte.weight'"):
        load_weights(make_model(folder), str(path))


def test_no_code_of_a_language_model_is_run(folder, tmp_path):
    path = tmp_path / "captioner.safetensors"
    clip = {"model_name": build_clip(tmp_path / "clip")}
    save_captioner(path, make_model(folder), settings_of(folder), clip)
    with safe_open(path, "pt") as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    stored = json.loads(metadata["language_model"])
    code = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    for changes, message in (
        ({"auto_map": code}, None),
        ({"auto_map": code, "model_type": "evil"}, "no causal language model of the type 'evil'"),
        ({"model_type": "clip"}, "no causal language model of the type 'clip'"),
    ):
        changed = stored | {"config": stored["config"] | changes}
        save_file(tensors, path, metadata | {"language_model": json.dumps(changed)})
        if message is None:
            assert not hasattr(load_captioner(path).lm.config, "auto_map")
        else:
            with pytest.raises(UserError, match=message):
                load_captioner(path)
    save_file(tensors, path, {k: v for k, v in metadata.items() if k != "language_model"})
    with pytest.raises(UserError, match="is not a captioner: it has no 'language_model'"):
        load_captioner(path)


def test_captioners_and_tokenizers_that_do_not_fit_into_a_file_are_refused(folder, tmp_path):
    model, clip = make_model(folder), {"model_name": "ViT-B-32"}

    class Other(type(model)):
        file_values = Captioner.file_values

    model.__class__ = Other
    with pytest.raises(UserError, match="got a `Other`: use its config and checkpoint"):
        save_captioner(tmp_path / "x.safetensors", model, settings_of(folder), clip)
    model = make_model(folder)
    model.tokenizer = SimpleNamespace(is_fast=False)
    with pytest.raises(UserError, match=r"must have a fast tokenizer .*got `SimpleNamespace`"):
        save_captioner(tmp_path / "x.safetensors", model, settings_of(folder), clip)
    assert not list(tmp_path.iterdir())
