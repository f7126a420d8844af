import math

import pytest
import torch
import torch.nn.functional as F

from pcm_plugin.errors import UserError
from pcm_plugin.evaluation.clip_score import clip_score
from pcm_plugin.evaluation.reference_free import reference_free_scores
from pcm_plugin.formats.tokenize import tokenize

CAPTIONS = ["Two red cars.", "a dog on a fire truck", "two red cars", "a tree"]
TOKENS = [tokenize(caption) for caption in CAPTIONS]
FOUND = [["car", "dog"], ["fire truck", "dog"], ["car"], []]
NAMED = [["car"], ["fire truck", "dog"], ["car"], []]


class FixedTexts:
    """Text encoder with fixed features."""

    def __init__(self, feats):
        self.feats = feats

    def encode_text(self, texts):
        return self.feats[: len(texts)]


@pytest.fixture
def feats():
    generator = torch.Generator().manual_seed(0)
    images, texts = torch.randn(2, 4, 6, generator=generator)
    return images, texts


def test_clip_score_is_that_of_the_metric(feats):
    scores = reference_free_scores(*feats, TOKENS, set(), FOUND, NAMED)
    expected = clip_score(feats[0], CAPTIONS, None, FixedTexts(feats[1])).total["CLIPScore"]
    assert scores["CLIPScore"] == pytest.approx(expected, rel=1e-5)


def test_the_margin_is_that_over_other_images(feats):
    scores = reference_free_scores(*feats, TOKENS, set(), FOUND, NAMED)
    images, texts = (F.normalize(rows.double(), dim=1) for rows in feats)
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    others = [250 * max(0.0, float(images[i] @ texts[j])) for i, j in pairs]
    mean = sum(others) / len(others)
    assert scores["CLIPScore of other images"] == pytest.approx(mean)
    assert scores["margin"] == pytest.approx(scores["CLIPScore"] - mean)
    alone = reference_free_scores(feats[0][:1], feats[1][:1], TOKENS[:1], set())
    assert math.isnan(alone["margin"])


def test_coverage_counts_the_concepts_of_all_images(feats):
    scores = reference_free_scores(*feats, TOKENS, set(), FOUND, NAMED)
    # Four of the five concepts: the dog of the first image is not named.
    assert scores["concept coverage"] == pytest.approx(80)
    nothing = reference_free_scores(*feats, TOKENS, set(), [[]] * 4, [[]] * 4)
    assert math.isnan(nothing["concept coverage"])
    unknown = reference_free_scores(*feats, TOKENS, set(), FOUND)
    assert math.isnan(unknown["concept coverage"])
    assert "concept coverage" not in reference_free_scores(*feats, TOKENS, set())


def test_copies_are_compared_word_for_word(feats):
    known = {"a dog on a fire truck", "a big tree"}
    scores = reference_free_scores(*feats, TOKENS, known)
    assert scores["copied"] == pytest.approx(25)
    assert scores["distinct captions"] == pytest.approx(75)
    assert scores["distinct words"] == 9
    assert scores["length"] == pytest.approx((3 + 6 + 3 + 2) / 4)


def test_features_that_do_not_match_are_refused(feats):
    with pytest.raises(
        UserError, match=r"must have the same shape .* got \(4, 6\), \(4, 5\) and 4"
    ):
        reference_free_scores(feats[0], feats[1][:, :5], TOKENS, set())
    with pytest.raises(UserError, match="at least one"):
        reference_free_scores(feats[0][:0], feats[1][:0], [], set())
