"""Captioners with a subword vocabulary: constraints, training and captioner files."""

import itertools
import json

import pytest
import torch

from pcm_plugin.errors import UserError
from pcm_plugin.formats.subword_vocabulary import SubwordVocabulary
from pcm_plugin.models.decoding import DecodingConfig
from pcm_plugin.models.decoding.vocabulary_constraints import vocabulary_constraints
from pcm_plugin.models.functional.constrained_search import constrained_beam_search
from pcm_plugin.structures import DataSample
from tests.test_models.test_captioner import CAPTIONS as ENGLISH
from tests.test_models.test_captioner import make_model

CAPTIONS = {
    "tr": ["bir köpek ve kedi", "köpekler kediyi görür", "köpeğin topu", "bir kediyi"] * 3,
    "zh": ["一只狗和一只猫", "两只猫在桌子上", "一只狗在桌子上"] * 3,
}
VOCABULARIES = {
    "tr": SubwordVocabulary.build(CAPTIONS["tr"], 45, 2),
    "zh": SubwordVocabulary.build(CAPTIONS["zh"], 40, 2),
}


def generate(language, seed=0, count=4, max_len=12, **decoding):
    """Return captions of a decoder with random logits."""
    vocabulary = VOCABULARIES[language]
    config = DecodingConfig(max_len=max_len, **decoding)
    constraints = vocabulary_constraints(vocabulary, config)
    generator = torch.Generator().manual_seed(seed)

    def step(words, parents):
        logits = torch.randn(*words.shape, len(vocabulary), generator=generator)
        logits[..., 0] -= 1
        return 2 * logits

    output = constrained_beam_search(step, count, config.beam_size, max_len, constraints)
    return [vocabulary.decode(ids[0].tolist()) for ids in output.ids]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("language", "include", "exclude"),
    [
        ("tr", ["köpek"], ["kedi"]),
        ("tr", ["bir kedi", "topu"], ["köpek", "ve"]),
        ("zh", ["狗"], ["猫"]),
        ("zh", ["两只", "桌子"], ["一只狗", "在"]),
    ],
)
def test_phrases_are_included_and_excluded_in_the_text(language, include, exclude, seed):
    space = " " if language == "tr" else ""
    unconstrained = generate(language, seed, 20, exclude=["x"])
    texts = generate(language, seed, 20, include=include, exclude=exclude)
    for text in texts:
        text = f"{space}{text}"
        assert all(f"{space}{phrase}" in text for phrase in include), text
        assert not any(f"{space}{phrase}" in text for phrase in exclude), text
    assert not all(phrase in text for text in unconstrained for phrase in include)


@pytest.mark.parametrize(
    ("language", "start"), [("tr", "bir köpek"), ("zh", "一只狗"), ("zh", "两只")]
)
def test_captions_start_with_words(language, start):
    for seed in range(5):
        for text in generate(language, seed, 10, start=start):
            assert text.startswith(start)
            # The last word is not continued, where words are separated.
            assert language == "zh" or not text[len(start) :][:1].isalpha()


def test_excluded_words_are_excluded_at_the_start_of_sentences():
    vocabulary = SubwordVocabulary.build(["İki İt", "iki it", "Köpek", "köpek"] * 5, 60)
    constraints = vocabulary_constraints(vocabulary, DecodingConfig(exclude=("iki", "köpek")))
    for text in ("İki", "iki", "Köpek", "köpek", "it iki"):
        [*words, last] = vocabulary.to_ids(text)
        assert last in constraints.excluded_words(tuple(words)), text
    [*words, last] = vocabulary.to_ids("it İt")
    assert last not in constraints.excluded_words(tuple(words))


def test_punctuation_around_a_phrase_is_no_part_of_it():
    """Also where punctuation is in the vocabulary; a phrase of punctuation only is."""
    vocabulary = SubwordVocabulary.build(["a dog, a cat.", "a dog runs.", "cat"] * 5, 60)

    def last_is_excluded(text, phrase):
        constraints = vocabulary_constraints(vocabulary, DecodingConfig(exclude=[phrase]))
        [*words, last] = vocabulary.to_ids(text)
        return last in constraints.excluded_words(tuple(words))

    for phrase in ("dog", "dog.", " a dog,", "\u201cdog!\u201d", "<b>dog</b>\u200b"):
        assert last_is_excluded("a dog", phrase), phrase
        assert not last_is_excluded("a cat", phrase), phrase
        constraints = vocabulary_constraints(vocabulary, DecodingConfig(include=[phrase]))
        assert constraints.num_missing(tuple(vocabulary.to_ids("a dog runs"))) == 0
    assert last_is_excluded("a dog,", ",")
    assert not last_is_excluded("a dog", ",")


@pytest.mark.parametrize(
    ("decoding", "message"),
    [
        ({"include": ["zebra"]}, "cannot generate 'zebra': 'a', 'z' is not among the characters"),
        ({"start": "狗"}, "cannot generate '狗'"),
        ({"exclude": ["kedi", "<b>"]}, "`exclude` must be a list of words, got `'<b>'`, which has"),
        ({"include": ["\u200b"]}, "`include` must be a list of words, got"),
        ({"include": ["köpek"], "exclude": ["köp"]}, "cannot contain and not contain"),
        ({"include": ["köpekler", "kediyi"], "max_len": 2}, "tokens, but max_len=2"),
    ],
)
def test_wrong_constraints(decoding, message):
    with pytest.raises(UserError, match=message):
        vocabulary_constraints(VOCABULARIES["tr"], DecodingConfig(**decoding))


def test_all_divisions_of_a_phrase_are_excluded():
    vocabulary = VOCABULARIES["zh"]
    constraints = vocabulary_constraints(vocabulary, DecodingConfig(exclude=("一只狗",)))
    pieces = range(1, len(vocabulary))
    for words in itertools.product(pieces, pieces):
        text = "".join(vocabulary.pieces[i] for i in words)
        if "一只狗" not in vocabulary.pieces[words[0]]:
            assert (words[1] in constraints.excluded_words(words[:1])) == ("一只狗" in text)


def test_a_captioner_learns_captions():
    vocabulary, captions = VOCABULARIES["zh"], CAPTIONS["zh"][:3]
    model = make_model(vocabulary=vocabulary)
    patches = 4 * torch.eye(3, 12).unsqueeze(1).expand(-1, 9, -1)  # (B, N, Dv)
    feats = {"patch_feats": patches, "global_feats": torch.eye(3, 8)}
    samples = [DataSample(gt_caption=c, clip_score=1.0) for c in captions]
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        model(**feats, data_samples=samples, mode="loss")["loss"].backward()
        optimizer.step()
    model.eval()
    assert [s.pred_caption for s in model(**feats, mode="predict")] == captions


@pytest.mark.parametrize("language", CAPTIONS)
def test_a_captioner_file_contains_the_vocabulary(language):
    model = make_model(vocabulary=VOCABULARIES[language])
    stored = json.loads(json.dumps(model.file_values()))
    for other in CAPTIONS:
        arguments = {"vocabulary": VOCABULARIES[other]}
        assert (model.file_arguments(stored) == arguments) == (other == language)


def test_the_word_level_vocabulary_is_unchanged():
    model = make_model()
    assert model.file_values() == {"vocabulary": model.vocabulary.words}
    assert model.vocabulary.encode(ENGLISH[0])[1].tolist()[:4] == [1, 3, 5, 0]
