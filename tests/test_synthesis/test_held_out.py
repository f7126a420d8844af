"""Choice of held-out captions: no training caption is a near-duplicate of one for validation."""

import random

import pytest

from pcm_plugin.errors import UserError
from pcm_plugin.formats.tokenize import tokenize
from pcm_plugin.synthesis.pipeline.corpus_settings import ValidationSettings
from pcm_plugin.synthesis.pipeline.held_out import MIN_IMAGES, hold_out
from pcm_plugin.synthesis.pipeline.near_duplicates import find_near_duplicates


def jaccard(one, other):
    one, other = set(one), set(other)
    return len(one & other) / len(one | other) if one | other else 1.0


def random_texts(count, seed, words=12, longest=9):
    """Texts of few different words, among them empty ones and repeated words."""
    draw = random.Random(seed)
    return [
        [f"w{draw.randrange(words)}" for _ in range(draw.randrange(longest + 1))]
        for _ in range(count)
    ]


@pytest.mark.parametrize("similarity", [0.01, 0.5, 2 / 3, 0.75, 0.8, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_near_duplicates_are_those_of_brute_force(similarity, seed):
    texts = random_texts(4500, seed, words=(2, 12, 40, 12)[seed])  # more than two chunks
    queries = [*random_texts(7, seed + 10), texts[0], texts[-1], []]
    expected = [
        [i for i, text in enumerate(texts) if jaccard(query, text) >= similarity]
        for query in queries
    ]
    assert find_near_duplicates(queries, iter(texts), similarity) == expected
    assert any(expected)


def test_no_queries_and_no_texts():
    assert find_near_duplicates([], [["a"]], 0.8) == []
    assert find_near_duplicates([["a"]], [], 0.8) == [[]]
    for wrong in (0, 1.01, -1):
        with pytest.raises(
            UserError, match=f"similarity must be above 0 and at most 1, got {wrong}"
        ):
            find_near_duplicates([["a"]], [["a"]], wrong)


def corpus(count, seed, per_image=3):
    draw = random.Random(seed)
    things = [f"thing{i}" for i in range(60)]
    texts = [
        f"A {draw.choice(things)}, and a {draw.choice(things)} near the {draw.choice(things)}"
        for _ in range(count)
    ]
    texts[::17] = [texts[0].upper()] * len(texts[::17])  # frequent, in other letters
    return [f"image{i // per_image}" for i in range(count)], texts


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("per_image", [1, 3])
@pytest.mark.parametrize(("captions", "max_share", "similarity"), [(40, 0.2, 0.8), (500, 0.4, 0.6)])
def test_nothing_leaks(seed, per_image, captions, max_share, similarity):
    image_ids, texts = corpus(900, seed, per_image)
    settings = ValidationSettings(captions, max_share, similarity, seed)
    held = hold_out(image_ids, texts, tokenize, settings)
    withheld = [*held.validation, *held.near_duplicates]
    assert len(set(withheld)) == len(withheld) <= max_share * 900
    assert 0 < len(held.validation) <= captions
    assert sorted(held.validation) == held.validation
    words = [tokenize(text) for text in texts]
    training = set(range(900)) - set(withheld)
    for i in held.validation:
        assert all(image_ids[j] != image_ids[i] for j in training)
        assert all(jaccard(words[i], words[j]) < similarity for j in training)
    # Nothing else is withheld.
    for i in held.near_duplicates:
        assert any(jaccard(words[i], words[j]) >= similarity for j in held.validation)
    assert hold_out(image_ids, texts, tokenize, settings) == held


def test_as_many_as_requested_if_there_are_no_near_duplicates():
    texts = [f"alpha{i} beta{i} gamma{i}" for i in range(1000)]
    image_ids = [str(i // 4) for i in range(1000)]
    held = hold_out(image_ids, texts, tokenize, ValidationSettings(42, 0.05))
    assert (len(held.validation), held.near_duplicates) == (40, [])  # 4 captions per image
    held = hold_out(image_ids, texts, tokenize, ValidationSettings(500, 0.05))
    assert len(held.validation) == 48
    other = hold_out(image_ids, texts, tokenize, ValidationSettings(500, 0.05, seed=1))
    assert len(set(other.validation) & set(held.validation)) < 20


def test_appended_captions_keep_most_of_the_choice():
    texts = [f"alpha{i} beta{i} gamma{i}" for i in range(1100)]
    ids = [str(i) for i in range(1100)]
    few = hold_out(ids[:1000], texts[:1000], tokenize, ValidationSettings(50))
    more = hold_out(ids, texts, tokenize, ValidationSettings(50))
    assert len(set(few.validation) & set(more.validation)) > 35


def test_too_few_captions_hold_nothing_out():
    texts = [f"alpha{i} beta{i}" for i in range(400)]
    for count in (1, 25, 20 * MIN_IMAGES - 1):
        ids = [str(i) for i in range(count)]
        assert hold_out(ids, texts[:count], tokenize, ValidationSettings()) == ([], [])
    ids = [str(i) for i in range(20 * MIN_IMAGES)]
    assert len(hold_out(ids, texts[: len(ids)], tokenize, ValidationSettings()).validation) == 10
    same = hold_out(["one image"] * 400, texts, tokenize, ValidationSettings())
    assert same == ([], []), "all captions are of one image"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("captions", 0, "captions must be an integer of at least 1, got 0"),
        ("captions", 2.5, "captions must be an integer of at least 1, got 2.5"),
        ("seed", -1, "seed must be an integer of at least 0, got -1"),
        ("patience", 0, "patience must be an integer of at least 1, got 0"),
        ("max_share", 1, "max_share must be above 0 and below 1, got 1: set validation=None"),
        ("max_share", 0, "max_share must be above 0 and below 1, got 0"),
        ("similarity", 1.5, "similarity must be above 0 and at most 1, got 1.5"),
    ],
)
def test_invalid_settings(name, value, message):
    with pytest.raises(UserError, match=message):
        ValidationSettings(**{name: value})
