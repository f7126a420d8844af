"""Constraints on captions, by the interfaces of captioners and commands."""

import re

import pytest

from pcm_plugin.apis import CaptionInferencer
from pcm_plugin.errors import UserError
from pcm_plugin.models.captioners import PCMNet
from pcm_plugin.models.decoding import DecodingConfig
from pcm_plugin.toyworld.render import render
from pcm_plugin.toyworld.world import unseen_scenes
from tests.builders import save_gpt2_config
from tests.test_models.test_prefix_lm import folder, make_feats, make_model  # noqa: F401


@pytest.fixture(scope="module")
def inferencer():
    return CaptionInferencer("pcm-net_toy", device="cpu", show_progress=False)


@pytest.fixture(scope="module")
def pictures():
    return [render(scene, 0).image for scene in unseen_scenes(4, minimum=2)]


def captions(inferencer, pictures, **decoding):
    return [p["caption"] for p in inferencer(pictures, **decoding)["predictions"]]


def test_captions_meet_the_constraints(inferencer, pictures):
    plain = captions(inferencer, pictures)
    for caption in captions(inferencer, pictures, start="two"):
        assert caption.startswith("two ")
    word = plain[0].split()[-1]
    assert word in plain[0].split()
    assert word not in captions(inferencer, pictures, exclude=[word])[0].split()
    for caption in captions(inferencer, pictures, include=["a red", "dog"], exclude=["dog and"]):
        assert "a red" in caption
        assert "dog" in caption.split()
        assert "dog and" not in caption
    completed = captions(inferencer, pictures, prefix="TOK, ", suffix=", drawing.")
    assert completed == [f"TOK, {caption}, drawing." for caption in plain]


def test_log_probabilities_are_those_of_the_decoder(inferencer, pictures):
    [plain] = inferencer(pictures[:1])["predictions"]
    [forced] = inferencer(pictures[:1], start=plain["caption"])["predictions"]
    assert forced["caption"] == plain["caption"]
    assert forced["log_prob"] == pytest.approx(plain["log_prob"], abs=1e-3)


def test_several_captions_are_ranked_among_those_that_meet_the_constraints(inferencer, pictures):
    found = inferencer(pictures, num_captions=3, include=["dog"])["predictions"]
    for prediction in found:
        texts = [c["caption"] for c in prediction["captions"]]
        assert len(texts) == 3
        assert all("dog" in text.split() for text in texts)
        scores = [c["log_prob"] for c in prediction["captions"]]
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    ("decoding", "message"),
    [
        ({"start": "zebra dog"}, r"cannot generate zebra, which is not among the"),
        ({"include": ["a zebra"]}, r"cannot generate zebra"),
        ({"include": "dog"}, r"`include` must be a list of words, got `'dog'`"),
        ({"exclude": [""]}, r"`exclude` must be a list of words"),
        ({"prefix": 1}, r"`prefix` must be a text, got `1`"),
        ({"include": ["dog"], "exclude": ["dog"]}, r"remove words of `exclude`"),
        ({"include": ["a dog"], "max_len": 1}, r"need 2 tokens, but max_len=1"),
    ],
)
def test_wrong_constraints_are_reported_before_work_starts(inferencer, decoding, message):
    def unread():
        raise AssertionError("no image may be read")
        yield

    with pytest.raises(UserError, match=message):
        inferencer(unread(), **decoding)


@pytest.mark.parametrize("text", ["zebra", "."])
def test_words_that_are_never_generated_may_be_excluded(inferencer, pictures, text):
    assert captions(inferencer, pictures, exclude=[text]) == captions(inferencer, pictures)


def test_a_captioner_without_constraints_says_so(monkeypatch, inferencer, pictures):
    monkeypatch.delattr(PCMNet, "check_decoding")
    with pytest.raises(UserError, match="PCMNet does not support `start`, `include` and `exclude`"):
        inferencer(pictures, start="a")


def test_settings_of_a_config_may_be_lists():
    assert DecodingConfig(include=["a dog"]).include == ("a dog",)
    assert DecodingConfig().updated({"exclude": ["a"]}).has_constraints


@pytest.mark.parametrize("full_sentences", [False, True])
def test_prefix_captioners_meet_them_in_tokens(folder, full_sentences):  # noqa: F811
    model = make_model(folder, entity_prompt=None)
    model.full_sentences = full_sentences
    feats = make_feats()

    def generated(**settings):
        decoding = model.decoding.updated({"max_len": 12, **settings})
        return [sample.pred_caption for sample in model.predict(**feats, decoding=decoding)]

    assert all(text.lower().startswith("the red") for text in generated(start="the red"))
    assert all("red house" in text for text in generated(include=["red house"]))
    words = {word for text in generated(min_len=4) for word in text.split()}
    assert words
    for word in words:
        assert not any(word in text.split() for text in generated(exclude=[word], min_len=4))
    with pytest.raises(UserError, match="need 2 tokens, but max_len=1"):
        generated(include=["red house"], max_len=1)


@pytest.fixture(scope="module")
def subword_folder(tmp_path_factory):
    """Return a GPT-2 config with a byte-level tokenizer of parts of words."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("subwords")
    trained = ByteLevelBPETokenizer()
    texts = ["a dog runs. hot dog dogs", "A red dog. the hotdog", "dog a", "run runs"]
    trained.train_from_iterator(texts * 5, 290, special_tokens=["<end>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer, eos_token="<end>", pad_token="<end>"
    )
    return save_gpt2_config(path, tokenizer, 0.6)


def test_parts_of_words_do_not_change_the_words(subword_folder):
    model = make_model(subword_folder, entity_prompt=None)
    tokens = model._tokenize(" dogs")
    assert len(tokens) > 1 or model._tokenize(" dog") != tokens
    feats = make_feats(24)

    def generated(**settings):
        decoding = model.decoding.updated({"max_len": 10, **settings})
        texts = [sample.pred_caption for sample in model.predict(**feats, decoding=decoding)]
        return [re.findall(r"\w+", text) for text in texts]

    for words in generated(include=["dog"]):
        assert "dog" in words
    for words in generated(start="a dog"):
        assert words[:2] == ["a", "dog"]


def test_punctuation_around_a_phrase_of_prefix_captioners_is_no_part_of_it(folder):  # noqa: F811
    model = make_model(folder, entity_prompt=None)
    feats = make_feats()

    def generated(**settings):
        decoding = model.decoding.updated({"max_len": 12, "min_len": 4, **settings})
        return [sample.pred_caption for sample in model.predict(**feats, decoding=decoding)]

    for phrase in ("red house.", "\u201cred house,"):
        assert generated(include=[phrase]) == generated(include=["red house"])
    word = generated()[0].split()[0].strip(".,")
    assert generated(exclude=[f"{word},"]) == generated(exclude=[word]) != generated()


def test_prefix_captioners_report_what_they_cannot_do(folder):  # noqa: F811
    model = make_model(folder, entity_prompt=None)
    feats = make_feats()
    for settings in ({"start": "a zebra"}, {"include": ["zebra"]}):
        with pytest.raises(UserError, match=r"cannot generate '(a )?zebra'"):
            model.predict(**feats, decoding=model.decoding.updated(settings))
    plain = model.predict(**feats, decoding=model.decoding)
    same = model.predict(**feats, decoding=model.decoding.updated({"exclude": ["zebra"]}))
    assert [s.pred_caption for s in same] == [s.pred_caption for s in plain]
    model.stop_ids = model._tokenize(".")
    with pytest.raises(UserError, match="leave out the full stop"):
        model.check_decoding(model.decoding.updated({"exclude": ["."]}))
