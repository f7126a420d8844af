import pytest

from pcm_plugin.formats.vocabulary import Vocabulary
from pcm_plugin.formats.vocabulary_coverage import VocabularyCoverage

VOCABULARY = Vocabulary(["a", "dog", "UNK"])


def test_captions_without_a_known_word_are_counted():
    captions = ["A dog!", "a UNK dog", "the cats", "UNK UNK", "...", "a cat"]
    coverage = VocabularyCoverage.measure(VOCABULARY, captions)
    assert (coverage.captions, coverage.unknown_captions) == (6, 3)
    assert (coverage.words, coverage.unknown_words) == (11, 6)
    assert coverage.examples == ["the cats", "UNK UNK", "..."]
    assert "6 of 11 words (54.5 %) are not in the vocabulary; 3 of 6 captions" in str(coverage)


def test_the_share_is_compared_with_the_limit():
    coverage = VocabularyCoverage.measure(VOCABULARY, ["a dog"] * 19 + ["cats"])
    coverage.check(0.05, "captions.txt", "Lower min_count")
    message = (
        r"captions.txt: 1 of 20 captions \(5.0 %\) have no word .* such as 'cats'; "
        r"the limit is max_unknown_captions=0.04. Lower min_count"
    )
    with pytest.raises(ValueError, match=message):
        coverage.check(0.04, "captions.txt", "Lower min_count")
    with pytest.raises(ValueError, match="between 0 and 1, got 2"):
        coverage.check(2, "captions.txt", "")
    VocabularyCoverage().check(0, "an empty corpus", "")
