"""Comparison of the tokenizer with Stanford CoreNLP, which pycocoevalcap runs in Java."""

import json
import random
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from pcm_plugin.evaluation import ptb_tokenizer
from pcm_plugin.evaluation.ptb.rules import RULES
from pcm_plugin.evaluation.ptb_tokenizer import PUNCTUATION, ptb_tokenize

PAIRS = json.loads((Path(__file__).parents[1] / "data" / "ptb_tokens.json").read_text())
SENTINEL = "QZQ"


def java_tokens(captions, folder):
    """Return the tokens of pycocoevalcap for all lines of a caption."""
    package = Path(find_spec("pycocoevalcap").submodule_search_locations[0])
    jar = package / "tokenizer" / "stanford-corenlp-3.4.1.jar"
    lines = folder / "lines.txt"
    text = "".join(caption.replace("\n", " ") + f"\n{SENTINEL}\n" for caption in captions)
    lines.write_bytes(text.encode())
    program = "edu.stanford.nlp.process.PTBTokenizer"
    printed = subprocess.run(
        ["java", "-cp", jar, program, "-preserveLines", "-lowerCase", lines],
        check=True,
        capture_output=True,
    ).stdout.decode()
    parts = re.split(f"(?m)^{SENTINEL.lower()}\n", printed)
    return [
        [
            word
            for line in part.split("\n")
            for word in line.rstrip().split(" ")
            if word and word not in PUNCTUATION
        ]
        for part in parts[:-1]
    ]


def composed(count):
    """Generate random captions from pieces of the difficult ones and other characters."""
    dice = random.Random(3)
    pieces = sorted({piece for caption, _ in PAIRS for piece in caption.split(" ")})
    pieces += ["a", "the", "dog", "Dog", "The", "'s", "n't", ".", ",", "-", "'", '"', "/", "5"] * 40
    captions = []
    while len(captions) < count:
        parts = [
            chr(dice.choice([*range(0x80, 0xD800), *range(0xE000, 0x20000)]))
            if dice.random() < 0.1
            else dice.choice(pieces)
            for _ in range(dice.randint(2, 8))
        ]
        caption = "".join(part + dice.choice(["", " ", " "]) for part in parts)
        # The program continues these two over line ends.
        if not re.search(r"<[A-Za-z].*=|\[\^", caption):
            captions.append(caption)
    return captions


def differing(captions, expected):
    pairs = zip(captions, expected, strict=True)
    return [(text, want, got) for text, want in pairs if (got := ptb_tokenize(text)) != want]


def test_difficult_captions_have_the_tokens_of_the_program():
    assert len(PAIRS) >= 600
    assert differing(*zip(*PAIRS, strict=True)) == []


@pytest.mark.parametrize("left_out", range(len(RULES) - 1), ids=[r.name for r in RULES[:-1]])
def test_difficult_captions_need_every_rule(left_out, monkeypatch):
    matchers = ptb_tokenizer._MATCHERS
    monkeypatch.setattr(ptb_tokenizer, "_MATCHERS", matchers[:left_out] + matchers[left_out + 1 :])
    monkeypatch.setattr(ptb_tokenizer, "_lex_chunk", ptb_tokenizer._lex_chunk.__wrapped__)
    pattern = RULES[left_out].pattern
    concerned = [pair for pair in PAIRS if pattern.search(pair[0] + "\n")]
    assert any(ptb_tokenize(caption) != tokens for caption, tokens in concerned)


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("", []),
        (" \n", []),
        ("A dog\nruns.", ["a", "dog", "runs"]),
        ("a dog\u2028runs", ["a", "dog", "runs"]),
        ("a \ud800 dog", ["a", "dog"]),
        ("\ud83d dog \udc36", ["dog"]),
    ],
)
def test_captions_that_the_program_cannot_process(caption, tokens):
    assert ptb_tokenize(caption) == tokens


@pytest.mark.skipif(shutil.which("java") is None, reason="the program wants Java")
def test_agrees_with_the_program(tmp_path):
    captions = [caption for caption, _ in PAIRS] + composed(3000)
    assert differing(captions, java_tokens(captions, tmp_path)) == []
