import pytest

from pcm_plugin.synthesis.concepts.nouns import Noun, find_nouns

CAPTIONS = [
    "A dog jumps over the fence .",
    "Two dogs are jumping near a fence",
    "the brown dog is jumping on a bed",
    "A man in black pants rides a horse",
    "Men in pants are riding horses .",
    "A girl in pants plays on a tennis court",
    "Children play on the tennis court in front of a building",
    "a child sleeps in a bed",
]


def words(captions=CAPTIONS, **settings):
    return [noun.word for noun in find_nouns(captions, **{"min_count": 2, **settings})]


def test_frequent_nouns_are_found_singular_and_plural_together():
    found = find_nouns(CAPTIONS, min_count=2)
    assert set(found) == {
        Noun("dog", 3),
        Noun("pants", 3),
        Noun("bed", 2),
        Noun("child", 2),
        Noun("court", 2),
        Noun("fence", 2),
        Noun("horse", 2),
        Noun("man", 2),
        Noun("tennis", 2),
    }
    assert [noun.word for noun in found[:3]] == ["dog", "pants", "bed"]


def test_words_that_are_mostly_verbs_are_excluded():
    jumps = ["the dog jumps", "a jump", "a high jump"]
    assert "jump" in words([*CAPTIONS, *jumps])
    assert "jump" not in words(
        [*CAPTIONS, *jumps, "he is jumping", "jumping dogs", "she is jumping"]
    )


def test_what_stands_before_articles_is_a_verb():
    hits = ["a man hits the ball", "he hits a ball", "the boy hits his ball"]
    assert "hits" not in words([*CAPTIONS, *hits])
    assert "hit" not in words([*CAPTIONS, *hits])
    assert "ball" in words([*CAPTIONS, *hits])


def test_adjectives_of_countries_are_excluded():
    people = ["an asian man", "an asian child", "the German dog", "a german horse"]
    assert not {"asian", "german"} & set(words([*CAPTIONS, *people]))


def test_thresholds_stop_words_and_phrases():
    assert words(max_nouns=2) == ["dog", "pants"]
    assert words(min_count=3) == ["dog", "pants"]
    assert "front" not in words(min_count=1)
    assert "front" in words(min_count=1, stop_words=["dog"])
    assert "dog" not in words(stop_words=["dog"])
    assert "tennis court" in words(phrases=True)
    assert "tennis court" not in words(phrases=True, stop_words=["tennis"])


def test_invalid_settings_and_other_languages_are_refused():
    with pytest.raises(ValueError, match="none of 11 nouns occurs min_count=9 times"):
        find_nouns(CAPTIONS, min_count=9)
    with pytest.raises(ValueError, match=r"none of 1 nouns .*English"):
        find_nouns(["一只狗在草地上"])
    for wrong in ({"min_count": 0}, {"min_share": 2}, {"max_nouns": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
            find_nouns(CAPTIONS, **wrong)
