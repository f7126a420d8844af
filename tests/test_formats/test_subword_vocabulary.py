import itertools
import json
import unicodedata

import pytest
from transformers import PreTrainedTokenizerFast

from pcm_plugin.errors import UserError
from pcm_plugin.formats.subword_vocabulary import EOS, SubwordVocabulary
from pcm_plugin.formats.vocabulary import Vocabulary
from pcm_plugin.formats.vocabulary_coverage import VocabularyCoverage
from pcm_plugin.formats.vocabulary_file import load_vocabulary
from tests.test_tools.commands import run

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
CORPORA = {
    "tr": ["Bir köpek parkta koşuyor, İstanbul'da.", "köpeğin topu kırmızı", "3 topun ışığı"],
    "zh": ["一只红色的狗在公园里", "两只猫和一只狗，在桌子上", "公园里有一只红色的猫"],
    "hi": ["पानी की बोतल मेज पर है", "एक लड़की किताब पढ़ रही है"],
    "emoji": [f"a {FAMILY} walks", "a flag \U0001f1f9\U0001f1f7 \U0001f44d\U0001f3fd", "a b"],
}
REPEATED = {language: captions * 5 for language, captions in CORPORA.items()}


@pytest.fixture(scope="module", params=CORPORA)
def corpus(request):
    return CORPORA[request.param], SubwordVocabulary.build(REPEATED[request.param], 150)


def test_captions_are_restored(corpus):
    captions, vocabulary = corpus
    for caption in captions:
        inputs, targets = vocabulary.encode(caption, 200)
        ids = targets[targets > 0].tolist()
        assert vocabulary.decode([*ids, 0, 1]) == caption.replace("，", ",")
        assert inputs[0] == 0
        assert inputs[1 : len(ids) + 1].tolist() == ids
        assert targets[len(ids)] == 0
    assert len(vocabulary) <= 150
    assert len(set(vocabulary.pieces)) == len(vocabulary)


def test_text_is_normalized():
    vocabulary = SubwordVocabulary.build(REPEATED["tr"], 150)
    decomposed = unicodedata.normalize("NFD", "köpeğin  topu ")
    assert decomposed != "köpeğin topu"
    assert vocabulary.decode(vocabulary.to_ids(decomposed)) == "köpeğin topu"
    # Unknown characters are dropped, and the text of the end token is not the end token.
    assert vocabulary.decode(vocabulary.to_ids("köpek 狗 topu")) == "köpek topu"
    assert 0 not in vocabulary.to_ids(f"köpek {EOS} topu")
    assert vocabulary.split("topu 狗") == [*vocabulary.split("topu"), "▁", "狗"]
    assert "狗" not in vocabulary


@pytest.mark.parametrize("language", ["hi", "emoji"])
def test_truncated_captions_have_no_parts_of_characters(language):
    captions = CORPORA[language]
    # With a size of its characters only, each code point is a piece.
    characters = {c for caption in captions for c in caption if c != " "}
    vocabulary = SubwordVocabulary.build(REPEATED[language], len(characters) + 2)
    for caption, max_len in itertools.product(captions, range(3, 30)):
        targets = vocabulary.encode(caption, max_len)[1]
        text = vocabulary.decode(targets[targets > 0].tolist())
        assert caption.startswith(text)
        following = caption[len(text) :][:1]
        assert not following or unicodedata.category(following)[0] != "M"
        assert following not in ("\u200d", "\U0001f3fd", "\U0001f1f7")
        assert not text.endswith("\u200d")
    # A model may generate any sequence.
    ids = {piece: index for index, piece in enumerate(vocabulary.pieces)}
    if language == "emoji":
        assert vocabulary.decode([ids["a"], ids["\u200d"], 0]) == "a"
        assert vocabulary.decode([ids["▁"], ids["\U0001f3fd"], ids["a"]]) == "a"
    else:
        assert vocabulary.decode([ids["ि"], ids["क"], ids["ी"]]) == "की"
        assert vocabulary.encode("ि" * 9, 4)[1].tolist() == [ids["▁"], *[ids["ि"]] * 3]


def test_other_libraries_read_the_file(corpus, tmp_path):
    captions, vocabulary = corpus
    vocabulary.to_file(tmp_path / "tokenizer.json")
    assert load_vocabulary(tmp_path / "tokenizer.json") == vocabulary
    assert load_vocabulary(tmp_path / "tokenizer.json") != Vocabulary(["a"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), eos_token=EOS
    )
    for caption in map(str, captions):
        caption = caption.replace("，", ",")
        ids = tokenizer(caption)["input_ids"]
        assert ids == vocabulary.to_ids(caption)
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == caption
    assert tokenizer.eos_token_id == 0


def test_equal_captions_give_an_equal_vocabulary():
    captions = REPEATED["tr"]
    first = SubwordVocabulary.build(captions, 120)
    assert SubwordVocabulary.build(reversed(captions), 120) == first
    assert hash(SubwordVocabulary(first.to_json())) == hash(first)


def test_rare_characters_and_sizes():
    captions = [*REPEATED["zh"], "狼"]
    assert "狼" not in SubwordVocabulary.build(captions, 100)
    assert "狼" in SubwordVocabulary.build(captions, 100, min_count=1)
    with pytest.raises(UserError, match=r"`size` must be more than 19, .* got `19`: raise size"):
        SubwordVocabulary.build(captions, 19)
    with pytest.raises(UserError, match=r"none of 1 characters occurs min_count=5 times"):
        SubwordVocabulary.build(["狼"])


def test_coverage_counts_pieces():
    vocabulary = SubwordVocabulary.build(REPEATED["zh"], 100)
    coverage = VocabularyCoverage.measure(vocabulary, ["一只狗", "wolf", "一只 狼"])
    assert coverage.unknown_captions == 1
    assert coverage.unknown_words == 5
    assert "pieces" in str(coverage)
    assert coverage.max_len() == 1 + max(len(vocabulary.to_ids(c)) for c in ("一只狗", "一只 狼"))
    lengths = VocabularyCoverage.measure(Vocabulary(["a"]), ["a"] * 99 + ["a " * 50])
    assert (lengths.max_len(), lengths.max_len(1)) == (2, 51)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a subword vocabulary"),
        ("[]", "must be a JSON object, got a list"),
        ('{"model": {"type": "WordPiece", "vocab": {}}}', "must be a tokenizer of characters"),
    ],
)
def test_other_files_are_rejected(tmp_path, content, message):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=message):
        load_vocabulary(tmp_path / "tokenizer.json")


def test_the_command(tmp_path):
    (tmp_path / "captions.txt").write_text("\n".join(REPEATED["zh"]))

    def build(*options):
        words = [tmp_path / "captions.txt", *options]
        return run("build-vocabulary", *words, log=tmp_path / "log", launcher=False)

    out = tmp_path / "tokenizer.json"
    result = build("--kind", "subword", "--size", 60, "--out", out)
    assert result.code == 0, result.output
    vocabulary = load_vocabulary(out)
    assert len(vocabulary) <= 60
    assert f"{len(vocabulary) - 1} pieces; 0 of" in result.output
    longest = max(len(vocabulary.to_ids(caption)) for caption in CORPORA["zh"])
    assert f"model.decoding.max_len={longest + 1} fits" in result.output
    assert json.loads(out.read_text())["model"]["type"] == "BPE"
    # Whole captions without spaces are words of a word-level vocabulary.
    assert "--kind subword" in build("--out", tmp_path / "v.txt").output
    for options, message in (
        (["--size", 9, "--out", "v.txt"], "--size needs --kind subword"),
        (["--kind", "subword", "--unk", "--out", out], "--unk needs --kind word"),
        (["--kind", "subword", "--out", "v.txt"], "--out must be a .json file"),
        (["--out", out], "--out must be no .json file"),
    ):
        result = build(*options)
        assert result.code == 2
        assert message in result.output
