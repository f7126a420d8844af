import json
import sys

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from pcm_plugin.commands.build_concepts import main
from pcm_plugin.formats.concept_set import load_concepts, save_concepts
from pcm_plugin.formats.word_list import read_word_list
from pcm_plugin.synthesis.concepts.embedding import embed_concepts
from tests.builders import build_clip


def test_round_trip_normalises_and_keeps_the_remarks(tmp_path):
    path = tmp_path / "new" / "concepts.safetensors"
    rows = torch.randn(2, 8)
    save_concepts(path, ["dog", "caf\u00e9"], rows, "ViT-B-32", "openai", ["A photo of {}"])
    loaded = load_concepts(path)
    assert loaded.words == ["dog", "caf\u00e9"]
    torch.testing.assert_close(loaded.embeddings, torch.nn.functional.normalize(rows, dim=1))
    assert loaded[2:] == ("ViT-B-32", "openai", ("A photo of {}",))
    assert [p.name for p in path.parent.iterdir()] == ["concepts.safetensors"]


@pytest.mark.parametrize(
    ("words", "rows", "message"),
    [
        ([], torch.ones(0, 4), "at least one word, got none"),
        (["a", "b", "a"], torch.ones(3, 4), r"must be unique, .* repeated: \['a'\]"),
        (["a"], torch.ones(2, 4), r"of 1 words must have shape \(1, Dc\), got \(2, 4\)"),
        (["a"], torch.zeros(1, 4), "must be finite and not zero"),
    ],
)
def test_save_refuses(tmp_path, words, rows, message):
    with pytest.raises(ValueError, match=message):
        save_concepts(tmp_path / "c.safetensors", words, rows)
    assert not list(tmp_path.iterdir())


def test_load_refuses_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"pcm build-concepts"):
        load_concepts(tmp_path / "none.safetensors")
    (tmp_path / "text").write_text("dog")
    with pytest.raises(ValueError, match="text is not a concept file"):
        load_concepts(tmp_path / "text")
    save_file({"embeddings": torch.ones(3, 4)}, tmp_path / "short", {"words": json.dumps(["dog"])})
    with pytest.raises(ValueError, match="1 words, embeddings"):
        load_concepts(tmp_path / "short")


class _Lengths:
    """Embeds a text by its length and its first letter."""

    def encode_text(self, texts):
        found = torch.tensor([[len(text), ord(text[0])] for text in texts]).float()
        return found / found.norm(dim=1, keepdim=True)


def test_embedding_is_the_mean_over_the_prompts():
    templates = ["a {}", "the {} here"]
    rows = embed_concepts(["dog", "horse"], _Lengths(), templates, batch_size=3)
    expected = []
    for word in ("dog", "horse"):
        mean = _Lengths().encode_text([t.replace("{}", word) for t in templates]).mean(0)
        expected.append(mean / mean.norm())
    torch.testing.assert_close(rows, torch.stack(expected))
    assert not rows.requires_grad
    assert not rows.is_inference()


def test_templates_must_contain_a_placeholder():
    with pytest.raises(ValueError, match="a dog"):
        embed_concepts(["dog"], _Lengths(), ["a dog"])


def test_word_lists_are_read_and_captions_refused(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("dog\n\n traffic  light \ncat\ndog\n")
    assert read_word_list(path) == ["dog", "traffic light", "cat"]
    path.write_text("dog\na dog runs on grass\n")
    with pytest.raises(
        ValueError,
        match=r"words.txt:2: a line must be a phrase of at most 3 words, got 'a dog runs",
    ):
        read_word_list(path)
    path.write_text("\n")
    with pytest.raises(ValueError, match="no words in"):
        read_word_list(path)
    path.write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match=r"words\.txt: not UTF-8"):
        read_word_list(path)
    path.write_bytes(b"\xef\xbb\xbfdog\n")
    assert read_word_list(path) == ["dog"]


def test_command_line(tmp_path, monkeypatch, capsys):
    clip = build_clip(tmp_path / "clip")
    words, out = tmp_path / "words.txt", tmp_path / "concepts.safetensors"
    words.write_text("dog\nred car")
    command = f"build_concepts {words} --model {clip} --out {out} --templates"
    monkeypatch.setattr(sys, "argv", [*command.split(), "a photo of {}", "the {}"])
    main()
    assert "2 concepts" in capsys.readouterr().out
    concepts = load_concepts(out)
    assert concepts.words == ["dog", "red car"]
    assert concepts.templates == ("a photo of {}", "the {}")
    assert concepts.model.startswith("clip (sha256 ")
    model, tokenizer = open_clip.create_model(clip).eval(), open_clip.get_tokenizer(clip)
    prompts = [t.replace("{}", word) for word in concepts.words for t in concepts.templates]
    with torch.no_grad():
        each = model.encode_text(tokenizer(prompts), normalize=True).view(2, 2, -1)
    expected = torch.nn.functional.normalize(each.mean(1), dim=-1)
    torch.testing.assert_close(concepts.embeddings, expected)


def test_concepts_from_a_corpus(tmp_path, monkeypatch, capsys):
    clip = build_clip(tmp_path / "clip")
    captions, words = tmp_path / "captions.csv", tmp_path / "new" / "words.txt"
    captions.write_text("text,id\n" + "".join(f"a dog near the tree,{i}\n" for i in range(5)))
    (tmp_path / "known.txt").write_text("dog\ncat\n")
    out = tmp_path / "concepts.safetensors"
    command = f"build_concepts --captions {captions} --column text --out-words {words} --out {out} "
    command += f"--model {clip} --templates simple --compare-with {tmp_path / 'known.txt'}"
    monkeypatch.setattr(sys, "argv", command.split())
    main()
    printed = capsys.readouterr().out
    assert "2 nouns, from dog (5) to tree (5)" in printed
    assert "2 words here, 2 in" in printed
    assert "only here: tree\nonly there: cat" in printed
    assert words.read_text() == "dog\ntree\n"
    concepts = load_concepts(out)
    assert concepts.words == ["dog", "tree"]
    assert concepts.templates == tuple(t("{}") for t in open_clip.SIMPLE_IMAGENET_TEMPLATES)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "pass either WORDS or --captions"),
        (["words.txt", "--captions", "c.txt"], "pass either WORDS or --captions"),
        (["words.txt"], "pass --out with --model"),
        (["words.txt", "--out", "c.safetensors"], "--out needs --model"),
    ],
)
def test_arguments_that_do_not_go_together(monkeypatch, capsys, args, message):
    monkeypatch.setattr(sys, "argv", ["build_concepts", *args])
    with pytest.raises(SystemExit):
        main()
    assert message in capsys.readouterr().err
