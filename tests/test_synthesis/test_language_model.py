import json
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from pcm_plugin.errors import UserError
from pcm_plugin.synthesis.pipeline.language_model import (
    BERT_TOKENS,
    END,
    build_bert_tokenizer,
    build_gpt2,
)
from tests.mmpretrain_models import skip_without_mmpretrain_models
from tests.test_tools.commands import run

CAPTIONS = [
    "a dog runs over the grass",
    "a dog and a cat sit on the grass",
    "The Café's cat, number 42!",
    "a dog runs on the sand",
] * 3


def content(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_transformers_loads_the_gpt2_folder(tmp_path):
    size = build_gpt2(CAPTIONS, tmp_path / "gpt2", layers=1, width=8, heads=2, positions=32)
    config = AutoConfig.from_pretrained(tmp_path / "gpt2")
    assert (config.model_type, config.n_layer, config.n_embd, config.n_head) == ("gpt2", 1, 8, 2)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "gpt2")
    assert len(tokenizer) == config.vocab_size == size
    assert config.eos_token_id == tokenizer.eos_token_id
    assert tokenizer.decode([config.eos_token_id]) == END
    model = AutoModelForCausalLM.from_config(config)
    assert model.get_input_embeddings().weight.shape == (size, 8)
    assert not list((tmp_path / "gpt2").glob("*.safetensors"))


def test_gpt2_writes_any_text_back(tmp_path):
    build_gpt2(CAPTIONS, tmp_path / "gpt2")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "gpt2")
    for text in (" a dog runs", "Ein Löwe, 猫 and\ta \U0001f600 ."):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert len(tokenizer(" a dog runs").input_ids) == 3  # frequent words are a token each


def test_vocab_size_is_kept(tmp_path):
    assert build_gpt2(CAPTIONS, tmp_path / "gpt2", vocab_size=260) == 260
    assert build_bert_tokenizer(CAPTIONS, tmp_path / "bert", vocab_size=60) == 60


def test_bert_folder_is_what_blip_reads(tmp_path):
    skip_without_mmpretrain_models()
    from mmpretrain.models.utils import tokenizer as tokenizers

    size = build_bert_tokenizer(CAPTIONS, tmp_path / "bert")
    tokenizer = tokenizers.BlipTokenizer.from_pretrained(str(tmp_path / "bert"))
    assert tuple(tokenizer.convert_ids_to_tokens(range(5))) == BERT_TOKENS
    assert tokenizer.pad_token_id == 0
    assert tokenizer.convert_tokens_to_ids(["[DEC]", "[ENC]"]) == [size, size + 1]
    ids = tokenizer("A dog runs on the Café's grass").input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a dog runs on the cafe's grass"
    assert tokenizer.tokenize("a dogs") == ["a", "dog", "##s"]


@pytest.mark.parametrize(("kind", "size"), [("gpt2", 300), ("bert", 100)])
def test_command_gives_the_same_bytes_in_each_process(kind, size, tmp_path):
    # Words of one count: ties that a hash table would settle by chance.
    words = [f"{a}{b}{c}" for a in "bdfg" for b in "aeiou" for c in "lmnrst"]
    (tmp_path / "captions.txt").write_text("".join(f"a {w} on a {w}\n" for w in words))
    for name in ("one", "two"):
        result = run(
            "build-language-model",
            *(tmp_path / "captions.txt", "--kind", kind, "--vocab-size", size),
            *("--out", tmp_path / name),
            log=tmp_path / "log",
        )
        assert result.code == 0, result.output
        assert f"{size} tokens" in result.output
    assert content(tmp_path / "one") == content(tmp_path / "two")
    if kind == "gpt2":
        assert json.loads(content(tmp_path / "one")["config.json"])["vocab_size"] == 300


@pytest.mark.parametrize("build", [build_gpt2, build_bert_tokenizer])
def test_existing_folder_is_left_or_refused(build, tmp_path):
    folder = tmp_path / "model"
    build(CAPTIONS, folder)
    before = content(folder)
    build(CAPTIONS, folder)
    with pytest.raises(UserError, match="contains other files"):
        build([*CAPTIONS, "zebras"] * 2, folder)
    assert content(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("build", [build_gpt2, build_bert_tokenizer])
def test_impossible_sizes(build, tmp_path):
    with pytest.raises(ValueError, match="no captions"):
        build([], tmp_path / "model")
    with pytest.raises(ValueError, match="got 20"):
        build(CAPTIONS, tmp_path / "model", vocab_size=20)
    assert not list(tmp_path.iterdir())


def test_heads_divide_the_width(tmp_path):
    with pytest.raises(ValueError, match="heads=3"):
        build_gpt2(CAPTIONS, tmp_path / "model", width=8, heads=3)
