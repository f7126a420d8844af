"""Beam search under constraints on the words of a sequence.

Every beam has met a number of the words that must occur. Beams compete only with beams that have
met as many, so that those which spend a word on a constraint survive [1]_.

References:
    .. [1] Post and Vilar, "Fast Lexically Constrained Decoding with Dynamic Beam Allocation for
       Neural Machine Translation", NAACL 2018.

Shapes: B images, W beams per image, V vocabulary size, R returned sequences, T words.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.models.functional.beam_search import BeamOutput, Step

Words = tuple[int, ...]


class Constraints(Protocol):
    """Constraints on a sequence of words; see :class:`WordConstraints`."""

    @property
    def start(self) -> Words:
        """Words that a sequence starts with."""

    @property
    def num_words(self) -> int:
        """Number of words of the phrases that must occur."""

    @property
    def is_contradictory(self) -> bool:
        """Whether the start, or a phrase that must occur, contains an excluded phrase."""

    def num_missing(self, words: Words) -> int:
        """Return how many more words complete the phrases, if they do not overlap."""

    def next_words(self, words: Words) -> set[int]:
        """Return the words that continue, or begin, a missing phrase."""

    def excluded_words(self, words: Words) -> list[int]:
        """Return the words that must not follow."""


class WordConstraints(NamedTuple):
    """Constraints on a sequence of words.

    Attributes:
        start: Words that a sequence starts with.
        include: Phrases that occur in a sequence.
        exclude: Phrases that do not occur in a sequence.
        continuations: For tokens that are parts of words: those that continue a word. A phrase that
            is followed by one of them ends in another word, and does not count as included. An
            excluded phrase that begins with one of them is excluded at the start only.
    """

    start: Words = ()
    include: tuple[Words, ...] = ()
    exclude: tuple[Words, ...] = ()
    continuations: frozenset[int] = frozenset()

    @property
    def num_words(self) -> int:
        """Number of words of the phrases that must occur."""
        return sum(map(len, self.include))

    @property
    def is_contradictory(self) -> bool:
        """Whether the start, or a phrase that must occur, contains an excluded phrase."""
        required = (self.start, *self.include)
        return any(_contains(words, phrase) for phrase in self.exclude for words in required)

    def num_missing(self, words: Words) -> int:
        """Return how many more words complete the phrases, if they do not overlap."""
        return num_missing(words, self._missing(words))

    def next_words(self, words: Words) -> set[int]:
        """Return the words that continue, or begin, a missing phrase."""
        return next_words(words, self._missing(words))

    def excluded_words(self, words: Words) -> list[int]:
        """Return the words that must not follow."""
        excluded = [
            phrase[-1]
            for phrase in self.exclude
            if words[len(words) - len(phrase) + 1 :] == phrase[:-1]
            and (phrase[0] not in self.continuations or len(words) == len(phrase) - 1)
        ]
        if self.start and len(words) == len(self.start):
            excluded += self.continuations  # they would change the last word of the start
        return excluded

    def _missing(self, words: Words) -> list[Words]:
        return [
            phrase for phrase in self.include if not _contains(words, phrase, self.continuations)
        ]


class _Beam(NamedTuple):
    """A sequence.

    Attributes:
        words: Its words, including EOS.
        log_probs: Their log-probabilities.
        ended: Whether it ends with EOS.
        parent: Number of the beam that it continues.
    """

    words: Words = ()
    log_probs: tuple[float, ...] = ()
    ended: bool = False
    parent: int = 0

    def score(self, length_penalty: float) -> float:
        return sum(self.log_probs) / max(1, len(self.words)) ** length_penalty


@torch.no_grad()
def constrained_beam_search(
    step: Step,
    batch_size: int,
    beam_size: int,
    max_len: int,
    constraints: Constraints,
    bos_id: int = 0,
    eos_id: int | Sequence[int] = 0,
    num_return: int = 1,
    device: torch.device | str | None = None,
    length_penalty: float = 0.0,
) -> BeamOutput:
    """Search for the most probable sequences that meet the constraints.

    Without constraints, the result is that of
    :func:`~pcm_plugin.models.functional.beam_search.beam_search`. With phrases that must occur, the
    number of beams is increased to one more than their words if ``beam_size`` is less.

    Args:
        step: See ``beam_search``, as all arguments except ``constraints``. Scores are those of the
            decoder: excluded words do not increase the probability of the others.
        batch_size: B.
        beam_size: Beams per image.
        max_len: T.
        constraints: The constraints.
        bos_id: First input word. Defaults to 0.
        eos_id: Word that ends a sequence, or several such words. Defaults to 0.
        num_return: R, at most ``beam_size``. Defaults to 1.
        device: Device of the first words. Defaults to PyTorch's default device.
        length_penalty: Exponent of the length. Defaults to 0.0.

    Returns:
        The R best sequences of each image. If fewer meet the constraints, the last is repeated.

    Raises:
        UserError: If no sequence of at most ``max_len`` words meets the constraints.
    """
    check_constraints(constraints, max_len)
    eos_ids = [eos_id] if isinstance(eos_id, int) else list(eos_id)
    width = max(beam_size, 1 + constraints.num_words) if constraints.num_words else beam_size
    words = torch.full((batch_size, 1), bos_id, device=device)
    parents: Tensor | None = None
    images = [[_Beam()] for _ in range(batch_size)]
    for t in range(max_len):
        log_probs = step(words, parents).float().log_softmax(-1)  # (B, W, V)
        images = [
            _allocate(
                _successors(beams, rows, constraints, eos_ids, max_len - t - 1, width),
                constraints,
                width,
                length_penalty,
            )
            for beams, rows in zip(images, log_probs, strict=True)
        ]
        for beams in images:
            if not beams:
                raise UserError(
                    f"no caption of at most {max_len} tokens meets the constraints: exclude fewer "
                    "words, or raise max_len"
                )
        if all(_is_decided(beams, num_return, length_penalty) for beams in images):
            break
        # All images have as many beams; those that are missing repeat the last and are ignored.
        rows = [beams + beams[-1:] * (width - len(beams)) for beams in images]
        words = torch.tensor([[b.words[-1] for b in beams] for beams in rows], device=words.device)
        parents = torch.tensor([[b.parent for b in beams] for beams in rows], device=words.device)
    found = [_best(beams, constraints, num_return, length_penalty) for beams in images]
    return _as_output(found, eos_ids[0], max_len, length_penalty, words.device)


def check_constraints(constraints: Constraints, max_len: int) -> None:
    """Check that a sequence can meet the constraints.

    Args:
        constraints: The constraints.
        max_len: Maximum number of words.

    Raises:
        UserError: If the words that must occur do not fit, or contain an excluded phrase.
    """
    needed = len(constraints.start) + constraints.num_missing(constraints.start)
    if needed > max_len:
        raise UserError(
            f"`start` and `include` need {needed} tokens, but max_len={max_len}: raise max_len or "
            "require fewer words"
        )
    if constraints.is_contradictory:
        raise UserError(
            "a caption cannot contain and not contain the same words: remove words of `exclude` "
            "from `start` and `include`"
        )


def num_missing(words: Words, missing: Iterable[Words]) -> int:
    """Return how many more words complete phrases that are missing, if they do not overlap."""
    phrases = list(missing)
    begun = max((_overlap(words, phrase) for phrase in phrases), default=0)
    return sum(map(len, phrases)) - begun


def next_words(words: Words, missing: Iterable[Words]) -> set[int]:
    """Return the words that continue, or begin, phrases that are missing."""
    return {phrase[_overlap(words, phrase)] for phrase in missing}


def _contains(words: Words, phrase: Words, continuations: frozenset[int] = frozenset()) -> bool:
    ends = range(len(phrase), len(words) + 1)
    return any(
        words[end - len(phrase) : end] == phrase
        and not continuations.intersection(words[end : end + 1])
        for end in ends
    )


def _overlap(words: Words, phrase: Words) -> int:
    """Return the length of the longest beginning of the phrase with which the words end."""
    lengths = range(min(len(words), len(phrase) - 1), 0, -1)
    return next((n for n in lengths if words[len(words) - n :] == phrase[:n]), 0)


def _successors(
    beams: Iterable[_Beam],
    log_probs: Tensor,
    constraints: Constraints,
    eos_ids: list[int],
    num_left: int,
    width: int,
) -> Iterator[_Beam]:
    """Yield the best continuations of the beams of an image that can still meet the constraints.

    Args:
        beams: At most W beams.
        log_probs: (W, V).
        constraints: The constraints.
        eos_ids: Words that end a sequence.
        num_left: Number of words that can follow the next word.
        width: Number of continuations per beam.
    """
    for parent, beam in enumerate(beams):
        if beam.ended:
            yield beam._replace(parent=parent)
            continue
        row = log_probs[parent].clone()  # (V,)
        row[constraints.excluded_words(beam.words)] = -torch.inf
        if constraints.num_missing(beam.words):
            row[eos_ids] = -torch.inf
        if len(beam.words) < len(constraints.start):
            candidates = [constraints.start[len(beam.words)]]
        else:
            candidates = row.topk(min(width, len(row))).indices.tolist()
            following = constraints.next_words(beam.words)
            candidates += sorted(following - set(candidates))
        for word in candidates:
            log_prob = float(row[word])
            words = (*beam.words, word)
            if math.isfinite(log_prob) and constraints.num_missing(words) <= num_left:
                yield _Beam(words, (*beam.log_probs, log_prob), word in eos_ids, parent)


def _allocate(
    candidates: Iterable[_Beam], constraints: Constraints, width: int, length_penalty: float
) -> list[_Beam]:
    """Return at most ``width`` candidates: as many with each number of missing words, the best.

    Groups with fewer candidates leave their places to the best of the others.
    """
    groups: dict[int, list[_Beam]] = {}
    for beam in sorted(candidates, key=lambda b: b.score(length_penalty), reverse=True):
        groups.setdefault(constraints.num_missing(beam.words), []).append(beam)
    share = width // max(1, len(groups))
    chosen = [beam for group in groups.values() for beam in group[:share]]
    others = [beam for group in groups.values() for beam in group[share:]]
    others.sort(key=lambda b: b.score(length_penalty), reverse=True)
    chosen += others[: width - len(chosen)]
    return sorted(chosen, key=lambda b: b.score(length_penalty), reverse=True)


def _is_decided(beams: list[_Beam], num_return: int, length_penalty: float) -> bool:
    """Return whether the best sequences of an image can no longer change."""
    open_beams = [beam for beam in beams if not beam.ended]
    if not open_beams:
        return True
    finished = [beam.score(length_penalty) for beam in beams if beam.ended]
    if length_penalty > 0 or len(finished) < num_return:
        return False
    # An extension can only lower the score of a sequence.
    return finished[num_return - 1] >= max(beam.score(length_penalty) for beam in open_beams)


def _best(
    beams: list[_Beam], constraints: Constraints, num_return: int, length_penalty: float
) -> list[_Beam]:
    def rank(beam: _Beam) -> tuple[bool, float]:
        return constraints.num_missing(beam.words) == 0, beam.score(length_penalty)

    best = sorted(beams, key=rank, reverse=True)[:num_return]
    return best + best[-1:] * (num_return - len(best))


def _as_output(
    images: list[list[_Beam]],
    eos_id: int,
    max_len: int,
    length_penalty: float,
    device: torch.device,
) -> BeamOutput:
    def padded(values: Sequence[float], filler: float) -> list[float]:
        return [*values, *[filler] * (max_len - len(values))]

    ids = [[padded(beam.words, eos_id) for beam in beams] for beams in images]
    log_probs = [[padded(beam.log_probs, 0.0) for beam in beams] for beams in images]
    scores = [[beam.score(length_penalty) for beam in beams] for beams in images]
    lengths = [[len(beam.words) for beam in beams] for beams in images]
    return BeamOutput(
        torch.tensor(ids, device=device),
        torch.tensor(log_probs, device=device),
        torch.tensor(scores, device=device),
        torch.tensor(lengths, device=device),
    )
