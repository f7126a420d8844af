"""Near-duplicates of captions: those that share most of their words."""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from pcm_plugin.errors import UserError

_CHUNK = 2048  # texts compared at a time


def find_near_duplicates(
    queries: Sequence[Sequence[str]], texts: Iterable[Sequence[str]], similarity: float
) -> list[list[int]]:
    """Find the texts whose sets of words are similar to those of a few queries.

    The similarity of two texts is the Jaccard index of their sets of words: the number of words in
    both, divided by the number of words in either. Two texts without words have a similarity of 1.
    All texts are compared, without approximation. Time is proportional to the number of texts times
    the number of queries, and memory does not depend on the number of texts.

    Args:
        queries: Words of Q texts, some hundreds.
        texts: Words of each text, which may be of any number.
        similarity: Minimum similarity, above 0 and at most 1. With 0.8, texts of up to eight words
            are near-duplicates if one has a word more; those of nine words or more also if one word
            is replaced.

    Returns:
        For each query, the positions in ``texts`` of its near-duplicates, in ascending order.

    Raises:
        UserError: If ``similarity`` is out of range.
    """
    if not 0 < similarity <= 1:
        raise UserError(f"similarity must be above 0 and at most 1, got {similarity}")
    sets = [frozenset(words) for words in queries]
    rows = {word: row for row, word in enumerate(sorted(frozenset().union(*sets)))}
    # One more row, without any query, for all words that occur in no query.
    contains = np.zeros((len(rows) + 1, len(sets)), np.int32)  # (W + 1, Q)
    for query, words in enumerate(sets):
        contains[[rows[word] for word in words], query] = 1
    query_sizes = np.array([len(words) for words in sets], np.int32)  # (Q,)
    found: list[list[int]] = [[] for _ in sets]
    iterator, start = iter(texts), 0
    while sets and (chunk := [frozenset(t) for t in itertools.islice(iterator, _CHUNK)]):
        # A text without words gets the additional row, since no segment of reduceat may be empty.
        indices = [[rows.get(w, len(rows)) for w in words] or [len(rows)] for words in chunk]
        flat = np.fromiter(itertools.chain.from_iterable(indices), np.int64)
        begins = np.cumsum([0, *map(len, indices[:-1])])
        shared = np.add.reduceat(contains[flat], begins, axis=0)  # (texts, Q)
        sizes = np.array([len(words) for words in chunk], np.int32)[:, None]  # (texts, 1)
        either = sizes + query_sizes - shared
        matches = shared / np.maximum(either, 1) >= similarity
        matches |= either == 0
        for text, query in zip(*matches.nonzero(), strict=True):
            found[query].append(start + int(text))
        start += len(chunk)
    return found
