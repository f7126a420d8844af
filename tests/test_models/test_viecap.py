"""The prefix captioner with the settings of ViECap's released code (Fei et al. 2023)."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoTokenizer

from pcm_plugin.models.decoding import DecodingConfig
from pcm_plugin.models.decoding.caption_form import find_full_stops
from pcm_plugin.models.necks.entity_prompt import EntityPrompt
from pcm_plugin.registry import MODELS
from pcm_plugin.structures import DataSample
from pcm_plugin.synthesis.pipeline.language_model import build_gpt2
from tests.builders import WORDS, build_tokenizer, save_gpt2_config
from tests.test_models.test_prefix_lm import CAPTIONS, DC, PROMPT, make_feats, make_model


class PublishedLayer(nn.Module):
    """Block of ViECap's mapping network, reimplemented from its released code."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries = nn.Linear(width, width, bias=False)
        self.keys_values = nn.Linear(width, 2 * width, bias=False)
        self.project = nn.Linear(width, width)
        self.first, self.second = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        y = self.norm1(x)
        queries = self.queries(y).unflatten(-1, (self.heads, -1))
        keys, values = self.keys_values(y).unflatten(-1, (2, self.heads, -1)).unbind(2)
        weights = torch.einsum("bnhd,bmhd->bhnm", queries, keys) / queries.shape[-1] ** 0.5
        x = x + self.project(
            torch.einsum("bhnm,bmhd->bnhd", weights.softmax(-1), values).flatten(2)
        )
        return x + self.second(F.relu(self.first(self.norm2(x))))


def test_neck_and_mapper_equal_the_published_mapping_network():
    torch.manual_seed(0)
    width, heads, length = 16, 4, 10
    neck = MODELS.build(
        dict(
            type="pcm_plugin.GlobalPrefix",
            clip_dim=DC,
            embed_dims=width,
            num_tokens=length,
            linear=True,
        )
    )
    mapper = MODELS.build(
        dict(
            type="pcm_plugin.PrefixMapper",
            out_dims=width,
            embed_dims=width,
            num_layers=3,
            num_heads=heads,
            qkv_bias=False,
        )
    )
    layers = [PublishedLayer(width, heads) for _ in mapper.blocks]
    for block, layer in zip(mapper.blocks, layers, strict=True):
        for ours, theirs in (
            (block.norm1, layer.norm1),
            (block.norm2, layer.norm2),
            (block.self_attn.out_proj, layer.project),
            (block.linear1, layer.first),
            (block.linear2, layer.second),
        ):
            ours.load_state_dict(theirs.state_dict())
        weights = torch.cat([layer.queries.weight, layer.keys_values.weight])
        block.self_attn.in_proj_weight.data = weights.data
    names = {name.rpartition(".")[-1] for name, _ in mapper.named_parameters()}
    assert "in_proj_bias" not in names
    sizes = [sum(value.numel() for value in layer.parameters()) for layer in layers]
    assert sum(v.numel() for v in mapper.parameters()) == sum(sizes) + length * width

    feats = torch.randn(3, DC)
    tokens = neck.eval()(None, feats)
    assert tokens.tokens.shape == (3, length, width)
    x = neck.global_proj(F.normalize(feats, dim=-1)).view(3, length, width)
    torch.testing.assert_close(tokens.tokens, x)
    x = torch.cat([x, mapper.queries.expand(3, -1, -1)], dim=1)
    for layer in layers:
        x = layer(x)
    for mode in (True, False):  # PyTorch uses another kernel in evaluation
        prefix = mapper.train(mode)(tokens.tokens, tokens.mask)
        torch.testing.assert_close(prefix, x[:, length:], rtol=1e-4, atol=1e-5)
    # In training only the noise on the feature is random.
    assert [*neck.train().state_dict()] == ["global_proj.weight", "global_proj.bias"]
    assert not torch.allclose(neck(None, feats).tokens, tokens.tokens)
    with pytest.raises(ValueError, match="`num_tokens` must be at least 1, got `0`"):
        MODELS.build(dict(type="pcm_plugin.GlobalPrefix", clip_dim=DC, num_tokens=0))


def make_prompt(path, **settings):
    path.write_text("dog\ncat\nperson\nbench\ntennis court\n")
    settings = dict(caption_entities=path, entity_dropout=0.0) | settings
    return EntityPrompt(DC, **settings)


def test_prompts_in_training_name_the_entities_of_captions(tmp_path):
    aliases = dict.fromkeys(["man", "women", "kid"], "person")
    prompt = make_prompt(tmp_path / "words.txt", entity_aliases=aliases)
    captions = [
        "Two dogs and a man on the benches, and another dog.",
        "A man and two women on a tennis court.",
        "A red car",
        "The kid's cats",
    ]
    assert prompt.from_captions(captions) == [
        "There are dog, person, bench in image.",
        "There are person in image.",
        "There are something in image.",
        "There are person, cat in image.",
    ]
    few = make_prompt(tmp_path / "words.txt", entity_aliases=aliases, max_caption_entities=2)
    assert few.from_captions(captions[:1]) == ["There are dog, person in image."]
    dropped = make_prompt(tmp_path / "words.txt", entity_dropout=0.4)
    torch.manual_seed(0)
    prompts = dropped.from_captions(["a cat"] * 2000)
    share = prompts.count("There are something in image.") / 2000
    assert share == pytest.approx(0.4, abs=0.04)
    assert set(prompts) == {"There are something in image.", "There are cat in image."}
    with pytest.raises(ValueError, match="`entity_dropout` must be a probability, got `40`"):
        make_prompt(tmp_path / "words.txt", entity_dropout=40)
    with pytest.raises(FileNotFoundError):
        make_prompt(tmp_path / "words.txt", caption_entities=tmp_path / "nowhere.txt")


@pytest.fixture
def folder(tmp_path):
    """Return a GPT-2 config whose tokenizer has the full stop and capital letters."""
    tokenizer = build_tokenizer([*WORDS, "are", "image", "something", ".", ","])
    return save_gpt2_config(tmp_path, tokenizer)


def test_prompts_use_captions_in_training_and_features_at_inference(folder, tmp_path):
    (tmp_path / "words.txt").write_text("dog\ncat\n")
    settings = dict(caption_entities=str(tmp_path / "words.txt"), entity_dropout=0.0)
    model = make_model(folder, entity_prompt=PROMPT | settings)
    feats = make_feats()
    samples = [DataSample() for _ in CAPTIONS]
    for sample, caption in zip(samples, CAPTIONS, strict=True):
        sample.gt_caption = caption

    def prompt_ids(*args):
        encoded = model.encode(*args)
        embeddings = model.lm.get_input_embeddings().weight
        prompts = encoded.encoder_out[:, 3:]
        ids = (prompts.unsqueeze(2) - embeddings).norm(dim=-1).argmin(-1)
        return [
            # Whether spaces are removed by default depends on the version of transformers.
            model.tokenizer.decode(i[m], clean_up_tokenization_spaces=False)
            for i, m in zip(ids, encoded.mask[:, 3:], strict=True)
        ]

    found = prompt_ids(None, feats["global_feats"], samples)
    assert found == prompt_ids(None, feats["global_feats"])
    assert any("car" in prompt or "tree" in prompt for prompt in found)
    model.train()
    named = ["dog", "cat", "cat", "something"]
    assert prompt_ids(None, feats["global_feats"], samples) == [
        f"<unk> are {word} in image ." for word in named
    ]
    with pytest.raises(ValueError, match="`data_samples` must have a gt_caption each"):
        model.encode(None, feats["global_feats"])


def test_sentences_end_with_the_full_stop(folder):
    model = make_model(folder, full_sentences=True, decoding=dict(max_len=6))
    stop = model.tokenizer.convert_tokens_to_ids(".")
    encoded = model.encode(**make_feats())
    written = []
    tokenize = model._tokenize
    model._tokenize = lambda text: written.append(text) or tokenize(text)
    captions = ["a dog runs", "the CAT .", "A RED CAR!", "a dog and a cat and a house and a tree"]
    _, targets = model.forward_decoder(encoded, captions)
    assert written == [
        "A dog runs",
        "The CAT",
        "A red car",
        "A dog and a cat and a house and a tree",
    ]
    for row in targets.tolist():
        tokens = [i for i in row if i >= 0]
        assert tokens[-1] == stop
        assert tokens.count(stop) == 1
        assert model.tokenizer.eos_token_id not in tokens
    assert (targets >= 0).sum(1).tolist() == [4, 3, 4, 6]


@pytest.mark.parametrize("beam_size", [1, 3])
def test_generation_stops_at_the_full_stop(folder, beam_size):
    model = make_model(folder, full_sentences=True)
    plain = make_model(folder)
    plain.load_state_dict(model.state_dict())
    stop = model.tokenizer.convert_tokens_to_ids(".")
    bias = torch.zeros(len(model.tokenizer))
    bias[model.tokenizer.all_special_ids] = -100.0
    bias[stop] = 3.0
    found = {}
    for name, captioner in (("sentences", model), ("plain", plain)):
        head = captioner.lm.get_output_embeddings()
        head.register_forward_hook(lambda module, inputs, logits: logits + bias)
        encoded = captioner.encode(**make_feats(12))
        decoding = DecodingConfig(
            beam_size, max_len=8, length_penalty=1.0 if beam_size > 1 else 0.0
        )
        found[name] = [own[0].caption for own in captioner.generate(encoded, decoding)]
    assert not any("." in caption for caption in found["sentences"])
    assert any(len(caption.split()) < 8 for caption in found["sentences"])
    assert any("." in caption for caption in found["plain"])
    if beam_size == 1:
        cut = [caption.partition(".")[0].strip() for caption in found["plain"]]
        assert found["sentences"] == cut


def test_a_tokenizer_without_a_full_stop_is_refused(tmp_path):
    from transformers import GPT2Config

    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    GPT2Config(vocab_size=len(tokenizer), n_embd=12, n_layer=1, n_head=2).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`full_sentences` must be False for a tokenizer without"):
        make_model(tmp_path, full_sentences=True)


def test_a_byte_level_tokenizer_has_two_full_stops(tmp_path):
    texts = ["a dog runs .", "a cat sits.", "a dog sits ."] * 9
    build_gpt2(texts, tmp_path / "lm", vocab_size=300)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "lm")
    assert [tokenizer.decode([i]) for i in find_full_stops(tokenizer)] == [".", " ."]
