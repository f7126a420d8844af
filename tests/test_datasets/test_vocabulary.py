import sys

import pytest
import torch

from pcm_plugin.datasets.text import tokenize
from pcm_plugin.datasets.vocabulary import Vocabulary
from tools.build_vocabulary import main


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A man, on a horse.", ["a", "man", "on", "a", "horse"]),
        ("The dog's T-shirt", ["the", "dogs", "tshirt"]),
        ("black,white;and/grey", ["black", "white", "and", "grey"]),
        ("Cafe\u0301  \u00c9T\u00c9\n", ["caf\u00e9", "\u00e9t\u00e9"]),
        (
            "\U0001f415 \u4e00\u53ea\u72d7\u3002 \u0939\u093f\u0928\u094d\u0926\u0940",
            ["\u4e00\u53ea\u72d7", "\u0939\u093f\u0928\u094d\u0926\u0940"],
        ),
        (" ... ", []),
    ],
)
def test_tokenize(caption, words):
    assert tokenize(caption) == words


def test_index_zero_is_the_stop_token():
    vocabulary = Vocabulary(["a", "dog"])
    assert len(vocabulary) == 3
    inputs, targets = vocabulary.encode("A dog!", max_len=5)
    assert inputs.tolist() == [0, 1, 2, 0, 0]
    assert targets.tolist() == [1, 2, 0, -1, -1]
    assert inputs.dtype == targets.dtype == torch.int64


def test_long_captions_are_cut_and_still_end():
    inputs, targets = Vocabulary(["a"]).encode("a a a a a a", max_len=4)
    assert inputs.tolist() == [0, 1, 1, 1]
    assert targets.tolist() == [1, 1, 1, 0]


def test_unknown_words_are_dropped_or_become_unk():
    assert Vocabulary(["a", "dog"]).encode("a blue dog", 4)[1].tolist() == [1, 2, 0, -1]
    assert Vocabulary(["a", "dog", "UNK"]).encode("a blue dog", 4)[1].tolist() == [1, 3, 2, 0]


def test_a_batch_is_as_long_as_its_longest_caption():
    inputs, targets = Vocabulary(["a", "dog"]).encode_batch(["a", "a dog", ""], max_len=20)
    assert inputs.tolist() == [[0, 1, 0], [0, 1, 2], [0, 0, 0]]
    assert targets.tolist() == [[1, 0, -1], [1, 2, 0], [0, -1, -1]]


def test_decode_stops_at_zero():
    vocabulary = Vocabulary(["a", "dog"])
    assert vocabulary.decode(torch.tensor([1, 2, 0, 1])) == "a dog"
    assert vocabulary.decode([1, 2, 0, 1], with_stop=True) == "a dog ."
    assert vocabulary.decode([1, 2], with_stop=True) == "a dog"
    assert vocabulary.decode([0]) == ""


def test_build_keeps_frequent_words_in_a_fixed_order():
    captions = ["a dog", "a cat", "The cat", "the zebra"]
    assert Vocabulary.build(captions, min_count=2).words == ["a", "cat", "the"]
    assert Vocabulary.build(reversed(captions), min_count=2).words == ["a", "cat", "the"]
    with pytest.raises(ValueError, match="min_count=9"):
        Vocabulary.build(captions, min_count=9)


def test_file_holds_the_words_from_index_one(tmp_path):
    path = tmp_path / "new" / "vocabulary.txt"
    Vocabulary(["a", "h\u00fctte"]).to_file(path)
    assert path.read_text(encoding="utf-8") == "a\nh\u00fctte\n"
    assert Vocabulary.from_file(path) == Vocabulary(["a", "h\u00fctte"])


def test_a_byte_order_mark_is_no_part_of_a_word(tmp_path):
    (tmp_path / "vocabulary.txt").write_text("a\ndog\n", encoding="utf-8-sig")
    assert Vocabulary.from_file(tmp_path / "vocabulary.txt").words == ["a", "dog"]


def test_file_errors_name_the_file_and_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tools/build_vocabulary.py"):
        Vocabulary.from_file(tmp_path / "none.txt")
    (tmp_path / "twice.txt").write_text("a\nb\na\n")
    with pytest.raises(ValueError, match=r"twice.txt: word 'a' has two indices, 1 and 3"):
        Vocabulary.from_file(tmp_path / "twice.txt")


def test_command_line(tmp_path, monkeypatch, capsys):
    captions, out = tmp_path / "captions.txt", tmp_path / "vocabulary.txt"
    captions.write_text("A dog.\nA cat.\nThe cat!\n")
    command = f"build_vocabulary {captions} --min-count 2 --out {out}"
    monkeypatch.setattr(sys, "argv", command.split())
    main()
    assert Vocabulary.from_file(out).words == ["a", "cat"]
    assert "2 words" in capsys.readouterr().out
