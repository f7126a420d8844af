import json

import pytest
import torch

from pcm_plugin.formats.tokenize import tokenize
from pcm_plugin.formats.vocabulary import Vocabulary
from tests.test_tools.commands import run


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A man, on a horse.", ["a", "man", "on", "a", "horse"]),
        ("The dog's T-shirt", ["the", "dogs", "t", "shirt"]),
        (
            "a cloud\u2010wreathed, well\u2011lit hill",
            ["a", "cloud", "wreathed", "well", "lit", "hill"],
        ),
        (
            "brown & white greyhound (#7) at AT&T",
            ["brown", "&", "white", "greyhound", "#", "7", "at", "at", "&", "t"],
        ),
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


def test_index_zero_is_eos():
    vocabulary = Vocabulary(["a", "dog"])
    assert len(vocabulary) == 3
    inputs, targets = vocabulary.encode("A dog!", max_len=5)
    assert inputs.tolist() == [0, 1, 2, 0, 0]
    assert targets.tolist() == [1, 2, 0, -1, -1]
    assert inputs.dtype == targets.dtype == torch.int64


@pytest.mark.parametrize(
    ("num_words", "inputs", "targets"),
    [
        (2, [0, 1, 2, 0], [1, 2, 0, -1]),
        (3, [0, 1, 2, 3], [1, 2, 3, 0]),
        (4, [0, 1, 2, 3], [1, 2, 3, 4]),
        (5, [0, 1, 2, 3], [1, 2, 3, 4]),
    ],
)
def test_a_truncated_caption_has_no_eos(num_words, inputs, targets):
    vocabulary = Vocabulary(["v", "w", "x", "y", "z"])
    caption = " ".join(vocabulary.words[:num_words])
    encoded = vocabulary.encode(caption, max_len=4)
    assert [ids.tolist() for ids in encoded] == [inputs, targets]
    batch = vocabulary.encode_batch([caption, "v"], max_len=4)
    length = min(num_words + 1, 4)
    assert [ids[0].tolist() for ids in batch] == [inputs[:length], targets[:length]]
    assert vocabulary.encode(caption, max_len=1)[1].tolist() == [1]
    with pytest.raises(ValueError, match="max_len must be at least 1, got 0"):
        vocabulary.encode(caption, max_len=0)


def test_released_indices_are_reproduced_exactly():
    vocabulary = Vocabulary(["a", "dog", "mans", "t", "shirt", "&", "#", "7", "UNK"])
    for ids in (
        [1, 2],
        [1, 3, 4, 5, 6, 1, 9, 2],  # "a mans t shirt & a UNK dog"
        [7, 8, 9, 9],  # "# 7 UNK UNK"
        [9],
        [],
        [1, 9, 6] * 6,  # 18 words
        [*([1, 9, 6] * 6), 7],  # 19 words, the most that leave room for the stop token
        [*([1, 9, 6] * 6), 7, 2],  # 20 words
    ):
        targets = [*ids, 0, *[-1] * 20][:20]
        inputs, encoded = vocabulary.encode(vocabulary.decode(i for i in targets if i >= 0))
        assert encoded.tolist() == targets
        assert inputs.tolist() == [0, *ids, *[0] * 20][:20]


def test_a_caption_with_an_unknown_token_is_tokenized():
    vocabulary = Vocabulary(["a", "UNK", "t", "shirt", "&"])
    assert vocabulary.encode("A T-shirt & a cap.", 8)[1].tolist() == [1, 3, 4, 5, 1, 2, 0, -1]


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
    assert vocabulary.decode([1, 2, 0, 1], keep_eos=True) == "a dog ."
    assert vocabulary.decode([1, 2], keep_eos=True) == "a dog"
    assert vocabulary.decode([0]) == ""


def test_build_keeps_frequent_words_in_a_fixed_order():
    captions = ["a dog", "a cat", "The cat", "the zebra"]
    assert Vocabulary.build(captions, min_count=2).words == ["a", "cat", "the"]
    assert Vocabulary.build(reversed(captions), min_count=2).words == ["a", "cat", "the"]
    with pytest.raises(ValueError, match="min_count=9"):
        Vocabulary.build(captions, min_count=9)


def test_build_appends_the_word_for_rare_words():
    vocabulary = Vocabulary.build(["a dog", "a cat", "a dog"], min_count=2, unk=True)
    assert vocabulary.words == ["a", "dog", "UNK"]
    assert vocabulary.encode("a cat", 4)[1].tolist() == [1, 3, 0, -1]


def test_file_holds_the_words_from_index_one(tmp_path):
    path = tmp_path / "new" / "vocabulary.txt"
    Vocabulary(["a", "h\u00fctte"]).to_file(path)
    assert path.read_text(encoding="utf-8") == "a\nh\u00fctte\n"
    assert Vocabulary.from_file(path) == Vocabulary(["a", "h\u00fctte"])


def test_a_byte_order_mark_is_not_part_of_a_word(tmp_path):
    (tmp_path / "vocabulary.txt").write_text("a\ndog\n", encoding="utf-8-sig")
    assert Vocabulary.from_file(tmp_path / "vocabulary.txt").words == ["a", "dog"]


def test_file_errors_name_the_file_and_the_fix(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"pcm build-vocabulary"):
        Vocabulary.from_file(tmp_path / "none.txt")
    (tmp_path / "twice.txt").write_text("a\nb\na\n")
    with pytest.raises(ValueError, match=r"twice.txt: word 'a' has two indices, 1 and 3"):
        Vocabulary.from_file(tmp_path / "twice.txt")


def build(tmp_path, *args):
    out = tmp_path / "vocabulary.txt"
    return run("build-vocabulary", *args, "--out", out, log=tmp_path / "log"), out


def test_command_line(tmp_path):
    captions = tmp_path / "captions.txt"
    captions.write_text("A dog.\nA cat.\nThe cat!\n")
    result, out = build(tmp_path, captions, "--min-count", 2)
    assert Vocabulary.from_file(out).words == ["a", "cat"]
    assert "2 words; 2 of 6 words (33.3 %) are not in the vocabulary" in result.output


def test_the_command_counts_over_all_splits_and_appends_unk(tmp_path):
    images = [
        {
            "filename": f"{i}.jpg",
            "imgid": i,
            "sentids": [i],
            "split": split,
            "sentences": [{"raw": text, "sentid": i, "imgid": i, "tokens": text.split()}],
        }
        for i, (split, text) in enumerate(
            [("train", "a dog"), ("restval", "a t-shirt"), ("val", "a cat"), ("test", "a cat")]
        )
    ]
    (tmp_path / "dataset.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    all_splits = ["--split", "all", "--unk", "--min-count", 2]
    result, out = build(tmp_path, tmp_path / "dataset.json", *all_splits)
    assert Vocabulary.from_file(out).words == ["a", "cat", "UNK"]
    assert "4 captions" in result.output
    result, out = build(tmp_path, tmp_path / "dataset.json", "--min-count", 1)
    assert Vocabulary.from_file(out).words == ["a", "dog", "shirt", "t"]
    (tmp_path / "plain.txt").write_text("a dog\na cat\n")
    result, out = build(tmp_path, tmp_path / "plain.txt", "--split", "all", "--min-count", 2)
    assert Vocabulary.from_file(out).words == ["a"], "a file without splits is read whole"


def test_the_command_refuses_captions_that_lose_all_their_words(tmp_path):
    captions = tmp_path / "captions.txt"
    texts = ["a dog"] * 10 + ["\u4e00\u4e2a\u5973\u5b69", "\u8d70\u8fdb\u6728\u5c4b"]
    captions.write_text("\n".join(texts), encoding="utf-8")
    result, out = build(tmp_path, captions)
    assert result.code == 1
    assert not out.exists()
    assert "2 of 12 captions (16.7 %) have no word that is in the vocabulary" in result.output
    assert texts[-1] in result.output
    assert "Lower --min-count, or accept them with --max-unknown-captions" in result.output
    result, out = build(tmp_path, captions, "--max-unknown-captions", 0.2)
    assert result.code == 0, result.output
    assert "2 of 12 captions have no known word" in result.output
    result, out = build(tmp_path, captions, "--min-count", 1)
    assert len(Vocabulary.from_file(out).words) == 4
    assert "0 of 12 captions have no known word" in result.output
    result, _ = build(tmp_path, captions, "--max-unknown-captions", 5)
    assert "max_unknown_captions must be between 0 and 1, got 5.0" in result.output
