"""The word-level vocabulary of a captioner."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pcm_plugin.datasets.durable import write_bytes
from pcm_plugin.datasets.text import tokenize

STOP = 0
"""Index of BOS, which is EOS too; it prints as '.'."""

IGNORED = -1
"""Padding of a target sequence: positions that carry no loss."""


class Vocabulary:
    """Words and their indices.

    Index 0 is both BOS and EOS and is not in ``words``; the first word has index 1. This is the
    layout of the released ``vocabulary.txt`` files, which can be read as they are.

    Args:
        words: The words in the order of their indices, from index 1 on.

    Raises:
        ValueError: If a word is empty, holds white space or comes twice.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = list(words)
        self._index = {word: i for i, word in enumerate(self.words, start=1)}
        for i, word in enumerate(self.words, start=1):
            if word.split() != [word]:
                raise ValueError(f"word {i} of the vocabulary is {word!r}: give one word an entry")
            if self._index[word] != i:
                raise ValueError(f"word {word!r} has two indices, {i} and {self._index[word]}")
        self._unknown = self._index.get("UNK")

    def __len__(self) -> int:
        """Number of indices, the stop token's 0 included."""
        return len(self.words) + 1

    def __contains__(self, word: str) -> bool:
        return word in self._index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.words == other.words

    def __hash__(self) -> int:
        return hash(tuple(self.words))

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int = 5) -> "Vocabulary":
        """Count the words of a corpus and keep the frequent ones.

        Args:
            captions: The corpus, read once.
            min_count: How often a word must occur to be kept. Defaults to 5.

        Returns:
            Words by falling frequency, equal counts in alphabetical order.

        Raises:
            ValueError: If no word occurs ``min_count`` times.
        """
        counts: Counter[str] = Counter()
        for caption in captions:
            counts.update(tokenize(caption))
        kept = [word for word, count in counts.items() if count >= min_count]
        if not kept:
            raise ValueError(
                f"none of {len(counts)} words occurs min_count={min_count} times: "
                "lower min_count or give more captions"
            )
        return cls(sorted(kept, key=lambda word: (-counts[word], word)))

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> "Vocabulary":
        """Read a ``vocabulary.txt``: one word a line, from index 1 on.

        Args:
            path: The file, UTF-8.

        Returns:
            The vocabulary, indices as in the file.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If a line is empty, holds several words or repeats one.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"no vocabulary at {path}; make one with: "
                f"python tools/build_vocabulary.py CAPTIONS --out {path}"
            )
        lines = path.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
        try:
            return cls(line.strip() for line in lines)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def to_file(self, path: str | os.PathLike) -> None:
        """Write the words, one a line, in UTF-8; an old file is replaced whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, "".join(f"{word}\n" for word in self.words).encode())

    def encode(self, caption: str, max_len: int = 20) -> tuple[Tensor, Tensor]:
        """Turn a caption into the decoder's input and its target.

        Unknown words become ``UNK`` if the vocabulary has that word, and are left out otherwise.
        A caption of more than ``max_len - 1`` words is cut, so that the target always ends in 0.

        Args:
            caption: One sentence.
            max_len: Length T of the sequences. Defaults to 20, the released length.

        Returns:
            ``input_ids`` (T,) int64: 0, the words, then zeros; ``target_ids`` (T,) int64: the
            words, 0, then -1.

        Raises:
            ValueError: If ``max_len`` is below 1.
        """
        if max_len < 1:
            raise ValueError(f"max_len={max_len}: give at least 1, the place of the stop token")
        known = (self._index.get(word, self._unknown) for word in tokenize(caption))
        ids = [index for index in known if index is not None][: max_len - 1]
        rest = max_len - 1 - len(ids)
        return (
            torch.tensor([STOP, *ids] + [STOP] * rest),
            torch.tensor([*ids, STOP] + [IGNORED] * rest),
        )

    def encode_batch(self, captions: Sequence[str], max_len: int = 20) -> tuple[Tensor, Tensor]:
        """Encode several captions, no longer than the longest of them needs.

        Args:
            captions: B sentences.
            max_len: Upper bound of T. Defaults to 20.

        Returns:
            ``input_ids`` and ``target_ids``, both (B, T) int64, as :meth:`encode` gives them.
        """
        inputs, targets = map(
            torch.stack, zip(*(self.encode(c, max_len) for c in captions), strict=True)
        )
        longest = int((targets != IGNORED).sum(1).max())
        return inputs[:, :longest], targets[:, :longest]

    def decode(self, ids: Iterable[int], with_stop: bool = False) -> str:
        """Turn indices into a sentence, up to the first 0.

        Args:
            ids: Word indices without the leading BOS.
            with_stop: Whether a stop token that was met is printed, as the released code does:
                ``'a dog .'``. Defaults to False.

        Returns:
            The words separated by single spaces.
        """
        words = []
        for index in map(int, ids):
            if index == STOP:
                if with_stop:
                    words.append(".")
                break
            words.append(self.words[index - 1])
        return " ".join(words)
