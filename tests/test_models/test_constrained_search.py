"""Constrained beam search, compared with the enumeration of all sequences."""

import itertools

import pytest
import torch

from pcm_plugin.errors import UserError
from pcm_plugin.models.functional.beam_search import beam_search
from pcm_plugin.models.functional.constrained_search import (
    WordConstraints,
    constrained_beam_search,
)

V, T = 5, 4  # word 0 is BOS and EOS


class Model:
    """Logits that depend on image, position and the two last words."""

    def __init__(self, batch_size, seed):
        generator = torch.Generator().manual_seed(seed)
        shape = (batch_size, T, V, V, V)
        self.logits = 2 * torch.randn(shape, generator=generator)
        self.batch_size = batch_size

    def step(self):
        """Return the step of a search, which keeps the words of the beams."""
        state = {"t": 0, "words": torch.zeros(self.batch_size, 1, 2, dtype=torch.long)}

        def step(words, parents):
            if parents is not None:
                index = parents.unsqueeze(-1).expand(-1, -1, 2)
                state["words"] = state["words"].gather(1, index)
                state["words"] = torch.stack([state["words"][..., 1], words], -1)
            images = torch.arange(self.batch_size).unsqueeze(1)
            before, last = state["words"].unbind(-1)
            state["t"] += 1
            return self.logits[images, state["t"] - 1, before, last]

        return step

    def log_prob(self, image, words):
        total, history = 0.0, (0, 0)
        for t, word in enumerate(words):
            total += float(self.logits[(image, t, *history)].log_softmax(-1)[word])
            history = (history[1], word)
        return total

    def sequences(self):
        """Yield all complete sequences: up to T words, of which only the last may be EOS."""
        for length in range(1, T + 1):
            for words in itertools.product(range(V), repeat=length):
                if 0 not in words[:-1] and (words[-1] == 0 or length == T):
                    yield words


def contains(words, phrase, continuations=frozenset()):
    return any(
        words[i : i + len(phrase)] == phrase
        and not continuations & set(words[i + len(phrase) : i + len(phrase) + 1])
        for i in range(len(words))
    )


def meets(words, constraints):
    start, include, exclude, continuations = constraints
    return (
        words[: len(start)] == start
        and not (start and continuations & set(words[len(start) : len(start) + 1]))
        and all(contains(words, phrase, continuations) for phrase in include)
        and not any(
            words[: len(phrase)] == phrase
            if phrase[0] in continuations
            else contains(words, phrase)
            for phrase in exclude
        )
    )


CASES = [
    WordConstraints(),
    WordConstraints(start=(3,)),
    WordConstraints(start=(2, 2)),
    WordConstraints(exclude=((1,), (3,))),
    WordConstraints(exclude=((2, 4), (4, 4), (1, 2, 3))),
    WordConstraints(include=((4,),)),
    WordConstraints(include=((2, 3),)),
    WordConstraints(include=((4,), (1, 2))),
    WordConstraints(include=((1, 1),), exclude=((2,),), start=(1,)),
    WordConstraints(include=((1, 2, 3, 4),)),
    # Phrases may overlap, and the beginning of one may repeat.
    WordConstraints(include=((1, 1, 2),)),
    WordConstraints(include=((1, 2), (2,))),
    # A phrase before a word that continues it does not count.
    WordConstraints(include=((1, 2),), continuations=frozenset({3, 4})),
    WordConstraints(start=(2,), exclude=((3,),), continuations=frozenset({3, 4})),
    WordConstraints(exclude=((3, 1),), continuations=frozenset({3})),
]


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, -0.5])
@pytest.mark.parametrize("constraints", CASES)
def test_a_wide_beam_finds_the_best_of_all_sequences(constraints, length_penalty):
    model = Model(3, seed=7)
    found = constrained_beam_search(
        model.step(), 3, V**T, T, constraints, num_return=2, length_penalty=length_penalty
    )
    for image in range(3):
        expected = sorted(
            (
                (model.log_prob(image, words) / len(words) ** length_penalty, words)
                for words in model.sequences()
                if meets(words, constraints)
            ),
            reverse=True,
        )[:2]
        for rank, (score, words) in enumerate(expected):
            length = int(found.lengths[image, rank])
            assert tuple(found.ids[image, rank, :length].tolist()) == words
            assert float(found.scores[image, rank]) == pytest.approx(score, abs=1e-4)
            total = float(found.log_probs[image, rank].sum())
            assert total == pytest.approx(model.log_prob(image, words), abs=1e-4)


@pytest.mark.parametrize("beam_size", [1, 2, 3])
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("constraints", CASES[1:])
def test_narrow_beams_meet_the_constraints(constraints, seed, beam_size):
    found = constrained_beam_search(Model(4, seed).step(), 4, beam_size, T, constraints)
    for image in range(4):
        words = tuple(found.ids[image, 0, : int(found.lengths[image, 0])].tolist())
        assert meets(words, constraints)
        assert 0 not in words[:-1]


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("beam_size", [1, 3, 5])
def test_without_constraints_it_is_the_plain_search(beam_size, length_penalty):
    for seed in range(20):
        model = Model(4, seed)
        options = {"num_return": min(2, beam_size), "length_penalty": length_penalty}
        plain = beam_search(model.step(), 4, beam_size, T, **options)
        found = constrained_beam_search(model.step(), 4, beam_size, T, WordConstraints(), **options)
        assert torch.equal(found.ids, plain.ids)
        assert torch.equal(found.lengths, plain.lengths)
        torch.testing.assert_close(found.scores, plain.scores)
        torch.testing.assert_close(found.log_probs, plain.log_probs)


def test_a_certain_sequence_is_repeated_if_no_other_meets_the_constraints():
    constraints = WordConstraints(start=(1, 2, 3, 4))
    found = constrained_beam_search(Model(1, 0).step(), 1, 3, T, constraints, num_return=3)
    assert found.ids.tolist() == [[[1, 2, 3, 4]] * 3]


def test_impossible_constraints_are_reported():
    def search(**constraints):
        constrained_beam_search(Model(1, 0).step(), 1, 2, T, WordConstraints(**constraints))

    with pytest.raises(UserError, match="`start` and `include` need 5 tokens, but max_len=4"):
        search(start=(1, 2), include=((3, 4, 4),))
    search(start=(1, 2), include=((2, 4, 4),))  # the phrase begins in the start
    for impossible in ({"start": (1, 2)}, {"include": ((1, 2, 3),)}):
        with pytest.raises(UserError, match="remove words of `exclude`"):
            search(**impossible, exclude=((1, 2),))
    with pytest.raises(UserError, match="no caption of at most 4 tokens meets the constraints"):
        search(exclude=tuple((word,) for word in range(V)))
