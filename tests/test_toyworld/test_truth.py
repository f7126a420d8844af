"""Tests of the comparison of captions with their scenes."""

import pytest

from pcm_plugin.toyworld.captions import annotate
from pcm_plugin.toyworld.scene import TOWN, Scene, Thing, scenes
from pcm_plugin.toyworld.truth import (
    agreement,
    count_kinds,
    found_by_frequency,
    mentions,
    named_things,
)
from pcm_plugin.toyworld.world import build_world, read_scenes


def test_things_and_colors_are_parsed_in_order():
    caption = "two small red puppies and a lady in a blue dress beside a cup with a cup nearby"
    assert mentions(caption) == [("dog", "red"), ("woman", "blue"), ("cup", None), ("cup", None)]
    assert mentions("a snowman with an orange scarf") == [("snowman", "orange")]
    assert mentions("a person at night") == []
    caption = "two puppies and a red automobile, beside a parasol on the grass"
    assert named_things(caption) == ["car", "dog", "umbrella"]


def test_captions_of_annotators_agree_with_their_scenes():
    drawn = [s for s in scenes(TOWN, "train", 200, 0) for _ in range(5)]
    captions = [c for i, s in enumerate(drawn[::5]) for c in annotate(s, "plain", i)]
    score = agreement(captions, drawn)
    assert score["named right"] == score["color right"] == 100
    assert score["repeated"] == 0
    assert 60 < score["found"] < 100


def test_errors_are_counted():
    scene = Scene("street", (Thing("dog", "brown"), Thing("car", "red")))
    score = agreement(["a red dog and a cat and a dog", "a black car"], [scene, scene])
    # Of four mentions, the cat is wrong and the second dog is repeated; dog and car are found.
    assert score["named right"] == 75
    assert score["repeated"] == 25
    assert score["found"] == 50
    assert score["color right"] == 0
    assert agreement(["nothing to see"], [scene])["named right"] == 0


def test_things_are_found_by_how_often_captions_mention_them():
    counts = count_kinds(["a dog and two puppies", "a red car"] * 50 + ["a cat"] * 9)
    assert counts == {"dog": 50, "car": 50, "cat": 9}
    scene = Scene("street", (Thing("dog", "brown"), Thing("cat", "black")))
    other = Scene("street", (Thing("boat", "red"), Thing("car", "red")))
    found = found_by_frequency(["a cat", "a boat and a cat"], [scene, other], counts)
    # Cat (9 captions) and boat (none) are mentioned, dog and car (50) are not.
    assert found == {"0 to 9": 100, "10 to 99": 0, "100 and more": None}


def test_scenes_are_read_from_their_file(tmp_path):
    build_world(tmp_path, "town", {"train": 2, "val": 1, "test": 3}, workers=1)
    truth = read_scenes(tmp_path / "scenes_test.jsonl")
    assert list(truth) == [f"town_test_{i:05d}" for i in range(3)]
    assert list(truth.values()) == list(scenes(TOWN, "test", 3, 0))


def test_captions_and_scenes_must_have_the_same_number():
    with pytest.raises(ValueError, match="shorter"):
        agreement(["a dog", "a cat"], [Scene("park", (Thing("dog", "brown"),))])
