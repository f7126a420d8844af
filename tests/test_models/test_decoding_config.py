"""Changes of the settings of the search."""

import pytest

from pcm_plugin.errors import UserError
from pcm_plugin.models.decoding import DecodingConfig

WEIGHT = {"beam_size": 5, "rerank_weight": 400.0}
RANKS = {"beam_size": 5, "rerank": "ranks"}
TWO_CLIPS = {**RANKS, "rerank_clip": "RN50", "rerank_clip_pretrained": "openai"}


@pytest.mark.parametrize(
    ("stored", "changes", "expected"),
    [
        (WEIGHT, {"rerank": "ranks"}, RANKS),
        (WEIGHT, {"rerank": "sum"}, WEIGHT),
        (RANKS, {"rerank_weight": 400.0}, WEIGHT),
        (RANKS, {"rerank_weight": 0.0}, {"beam_size": 5}),
        (RANKS, {"rerank": "sum"}, {"beam_size": 5}),
        (TWO_CLIPS, {"rerank_weight": 400.0}, WEIGHT),
        (TWO_CLIPS, {"rerank": "sum"}, {"beam_size": 5}),
        (TWO_CLIPS, {"rerank_clip": None}, RANKS),
        (TWO_CLIPS, {"rerank_clip": "x"}, {**RANKS, "rerank_clip": "x"}),
        (TWO_CLIPS, {"rerank": "ranks", "beam_size": 7}, {**TWO_CLIPS, "beam_size": 7}),
    ],
)
def test_another_reranking_resets_the_settings_of_the_first(stored, changes, expected):
    assert DecodingConfig(**stored).updated(changes) == DecodingConfig(**expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rerank": "ranks", "rerank_weight": 1.0}, "`rerank_weight` has no effect with rerank='r"),
        ({"rerank_weight": 1.0, "rerank_clip": "x"}, "`rerank_clip` has no effect with rerank='s"),
    ],
)
def test_settings_that_are_passed_together_must_agree(changes, message):
    for base in (WEIGHT, RANKS, TWO_CLIPS):
        with pytest.raises(UserError, match=message):
            DecodingConfig(**base).updated(changes)
