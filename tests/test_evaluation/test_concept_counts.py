import pytest

from pcm_plugin.evaluation.concept_counts import (
    ConceptFinder,
    compare_concepts,
    concept_shares,
    frequent_only_in,
)
from pcm_plugin.formats.languages import split_words


def named(text, concepts, language="en"):
    return ConceptFinder(concepts, language).named(split_words(text, language), concepts)


def test_a_concept_is_named_in_singular_and_plural():
    assert named("Two red cars, and a dog", ["car", "dog", "cat"]) == ["car", "dog"]
    assert named("fire trucks", ["fire truck", "truck", "fire"]) == ["fire truck", "truck", "fire"]
    assert named("a fire near a truck", ["fire truck"]) == []
    assert named("a doghouse", ["dog", "house"]) == []
    assert named("", ["dog"]) == []
    assert named("sunglasses", ["sunglasses", "!"]) == ["sunglasses"]


@pytest.mark.parametrize(
    ("language", "text", "concepts", "expected"),
    [
        ("zh", "公园里有一只狗和消防车", ["狗", "消防车", "猫", "公园"], ["狗", "消防车", "公园"]),
        ("zh", "公园里有一只狗", ["dog", "园公"], []),
        ("ja", "犬がビーチを走る", ["ビーチ", "猫"], ["ビーチ"]),
        ("tr", "Irmakta İKİ köpek var.", ["köpek", "iki", "ırmak", "kedi"], ["köpek", "iki"]),
        ("de", "Zwei Hunde, ein Bus", ["Hund", "Bus", "Bu"], ["Bus"]),
    ],
)
def test_concepts_are_found_in_the_tokens_of_the_language(language, text, concepts, expected):
    assert named(text, concepts, language) == expected
    if language == "zh":
        assert named(text, concepts, "en") == []


def test_the_share_of_captions_that_name_a_concept():
    captions = [split_words(text, "zh") for text in ("一只狗", "一只猫", "有狗", "红色")]
    assert ConceptFinder(["狗", "马"], "zh").share(captions) == 50
    assert ConceptFinder(["dog"], "zh").share(captions) == 0


def test_missing_concepts_are_rare_in_images_and_captions():
    photos = [["狗", "船"]] * 3 + [["猫"]]
    synthetic = [["狗"], ["狗"], ["马"]]
    compared = compare_concepts(photos, synthetic, [["狗"], [], [], []], [["猫"], []])
    assert compared.only_in_photos == [("船", 75, 0), ("猫", 25, 0)]
    assert compared.only_in_synthetic == [("马", 0, pytest.approx(100 / 3))]
    assert compared.rare_in_captions == [("狗", 75, 0), ("船", 75, 0)]
    assert compared.left_out == [("船", 75, 0), ("狗", 75, 25), ("猫", 25, 0)]
    assert compared.missing == ["船"]
    assert compare_concepts(photos, None, None, [["猫"]]).missing == ["狗", "船"]
    assert compare_concepts(photos, synthetic, None, None).missing == []


def test_concepts_frequent_in_one_set_only():
    photos = concept_shares([["dog", "car"], ["dog", "dog"], ["tree"], ["car"]])
    assert photos == {"dog": 50, "car": 50, "tree": 25}
    others = {"car": 20.0, "dog": 10.0, "cat": 90.0}
    assert frequent_only_in(photos, others) == [("dog", 50, 10), ("tree", 25, 0)]
    assert frequent_only_in(photos, others, minimum=30) == [("dog", 50, 10)]
    assert frequent_only_in(photos, others, factor=2) == [
        ("dog", 50, 10), ("car", 50, 20), ("tree", 25, 0),
    ]  # fmt: skip
