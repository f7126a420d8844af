"""``pcm rephrase``: from captions to a file of other texts for ``pcm generate``."""

import json
import re
from collections import Counter

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from pcm_plugin.cli import main
from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.rephrasings import Rephrasings
from pcm_plugin.models.functional.sampling import sample_top_p
from pcm_plugin.synthesis.pipeline.language_model import build_gpt2
from pcm_plugin.synthesis.rephrase import PROMPT, Rephraser, RephraseSettings, select_texts

CAPTIONS = [
    *("a dog runs over the grass", "two men sit on a bench", "a cat sleeps", "a red car"),
    *("a boat on the sea", "a woman rides a horse", "the sea", "the sea"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return the folder of a tiny GPT-2 with random weights."""
    folder = tmp_path_factory.mktemp("models") / "gpt2"
    build_gpt2(
        [*CAPTIONS, PROMPT], folder, vocab_size=300, layers=1, width=32, heads=2, positions=256
    )
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    lm.save_pretrained(folder)
    return folder


@pytest.fixture
def captions(tmp_path):
    path = tmp_path / "captions.txt"
    path.write_text("\n".join(CAPTIONS))
    return path


@pytest.fixture
def rephrase(captions, model, tmp_path):
    def run(name, *options):
        out = tmp_path / name
        words = ["--model", model, "--out", out, "--device", "cpu", "--prompt", "{} =", *SETTINGS]
        main(["rephrase", *map(str, [captions, *words, *options])])
        return out

    return run


# The end of a text is about one token in 300 of a random model.
SETTINGS = ["--candidates", 8, "--max-tokens", 200, "--top-p", 1, "--batch-size", 3]


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_file_has_up_to_count_texts_of_each_caption(rephrase, captions, capsys):
    out = rephrase("out.jsonl", "--count", 2, "--max-tokens", 40)
    rows = rows_of(out)
    assert [row["id"] for row in rows] == [str(i) for i in range(1, len(CAPTIONS) + 1)]
    numbers = Counter(len(row["texts"]) for row in rows)
    assert numbers[2] >= 2
    assert numbers[0] + numbers[1] >= 1
    assert max(numbers) == 2
    Rephrasings(out, images_per_caption=3).check(CaptionFile(captions))
    output = capsys.readouterr()
    total = sum(len(row["texts"]) for row in rows)
    assert f"out.jsonl: {total} texts of 8 captions" in output.out
    assert f"{numbers[0] + numbers[1]} captions have fewer than 2 texts: raise" in output.out
    assert "rephrase: 100%" in output.err


def test_texts_depend_on_the_seed_and_the_id_but_not_on_the_batch(rephrase, captions):
    whole = rows_of(rephrase("whole.jsonl"))
    assert rows_of(rephrase("one.jsonl", "--batch-size", 1)) == whole
    assert whole[-1]["texts"] != whole[-2]["texts"], "equal captions with different ids"
    # The first texts of more candidates are the same.
    few = rows_of(rephrase("few.jsonl", "--count", 1))
    assert [row["texts"] for row in few] == [row["texts"][:1] for row in whole]
    seeded = rows_of(rephrase("seeded.jsonl", "--seed", 1))
    assert all(a["texts"] != b["texts"] for a, b in zip(whole, seeded, strict=True) if a["texts"])
    lines = [{"id": i, "caption": text} for i, text in enumerate(CAPTIONS, start=1)][::-1]
    captions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert rows_of(rephrase("reversed.jsonl")) == whole[::-1]


def test_an_interrupted_run_ends_with_the_same_bytes(rephrase, monkeypatch, captions):
    whole = rephrase("whole.jsonl").read_bytes()
    calls = []

    def dies(rephraser, batch):
        calls.append(len(batch))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return method(rephraser, batch)

    method = Rephraser.rephrase
    with monkeypatch.context() as patch:
        patch.setattr(Rephraser, "rephrase", dies)
        with pytest.raises(SystemExit):
            rephrase("out.jsonl")
        assert not captions.with_name("out.jsonl").exists()
        with pytest.raises(SystemExit, match=r"other settings \(seed: 0 there, 1 now\)"):
            rephrase("out.jsonl", "--seed", 1)
        assert rephrase("out.jsonl").read_bytes() == whole
    assert calls == [3, 3, 3, 2]
    assert not list(captions.parent.glob("*.partial"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "x.txt"], "--out must be a file name that ends in .jsonl, got x.txt"),
        (["--prompt", "say it"], "prompt must contain '{}' once"),
        (["--candidates", "2"], "candidates must be at least count=3, got 2"),
        (["--temperature", "0"], "temperature must be a finite number of more than 0, got 0.0"),
        (["--temperature", "nan"], "temperature must be a finite number of more than 0, got nan"),
        (["--top-p", "1.5"], "top_p must be more than 0 and at most 1, got 1.5"),
        (["--model", "no/such/model"], "got `no/such/model`"),
        (["--max-tokens", "255"], "more than the 256 of"),
    ],
)
def test_invalid_settings_are_reported_before_the_first_text(
    rephrase, options, message, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(Rephraser, "rephrase", None)
    with pytest.raises(SystemExit, match=re.escape(message)):
        rephrase("out.jsonl", *options)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_text_ends_before_a_line_break_or_the_end_of_text(model):
    rephraser = Rephraser(str(model), RephraseSettings(), "cpu")
    newline = rephraser.tokenizer("\n")["input_ids"]
    words = rephraser.tokenizer(" a dog")["input_ids"]
    assert rephraser._decode([*words, *newline, *words]) == " a dog"
    assert rephraser._decode([*words, rephraser.tokenizer.eos_token_id, *words]) == " a dog"
    assert rephraser._decode(words) == "", "not finished"


def test_unusable_texts_are_dropped():
    texts = ["A dog.", "", "  ", "the  dog ", "The dog!", "x" * 1001, "one dog", "a hound"]
    assert select_texts("a dog", texts, 2) == ["the dog", "one dog"]


def test_sampling_follows_the_probabilities_of_the_most_probable_tokens():
    probs = torch.tensor([0.1, 0.4, 0.2, 0.3])
    uniform = (torch.arange(1000) + 0.5) / 1000
    rows = probs.log().expand(1000, 4)

    def shares(**settings):
        tokens = sample_top_p(rows, uniform, **{"temperature": 1.0, "top_p": 1.0} | settings)
        return torch.bincount(tokens, minlength=4) / 1000

    assert torch.allclose(shares(), probs, atol=2e-3)
    # 0.4 + 0.3 is the first sum of at least 0.6.
    kept = torch.tensor([0, 0.4, 0, 0.3]) / 0.7
    assert torch.allclose(shares(top_p=0.6), kept, atol=2e-3)
    assert torch.allclose(shares(temperature=0.5), probs**2 / (probs**2).sum(), atol=2e-3)
    assert shares(top_p=1e-6)[1] == 1
    # The largest random number never leads to a token without probability.
    largest = torch.full((1,), 1 - 2**-24)
    logits = torch.tensor([[0.0, -torch.inf, 0.0, -torch.inf]])
    assert sample_top_p(logits, largest, 1.0, 1.0).item() in (0, 2)
