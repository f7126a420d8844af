"""Word-level vocabulary of a captioner."""

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import write_bytes
from pcm_plugin.formats.tokenize import tokenize

if TYPE_CHECKING:
    from torch import Tensor

EOS_ID = 0
"""Index of EOS, which is also BOS; it is printed as '.'."""

IGNORE_INDEX = -1
"""Index in target sequences that the loss ignores."""

UNKNOWN = "UNK"
"""Word that replaces all words outside of a vocabulary; the last word of the released lists."""


class Vocabulary:
    """Words and their indices.

    Index 0 is both BOS and EOS and is not in ``words``; the first word has index 1. This is the
    layout of the released ``vocabulary.txt`` files, which can be read as they are.

    Args:
        words: The words in the order of their indices, from index 1 on.

    Raises:
        UserError: If a word is empty, contains white space or is repeated.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = list(words)
        self._index = {word: i for i, word in enumerate(self.words, start=1)}
        for i, word in enumerate(self.words, start=1):
            if word.split() != [word]:
                raise UserError(f"word {i} must be a single word, got {word!r}")
            if self._index[word] != i:
                raise UserError(f"word {word!r} has two indices, {i} and {self._index[word]}")
        self._unknown = self._index.get(UNKNOWN)

    def __len__(self) -> int:
        """Return the number of indices, including EOS."""
        return len(self.words) + 1

    def __contains__(self, word: str) -> bool:
        return word in self._index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.words == other.words

    def __hash__(self) -> int:
        return hash(tuple(self.words))

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int = 5, unk: bool = False) -> "Vocabulary":
        """Build a vocabulary of the frequent words of a corpus.

        Args:
            captions: The corpus, read once.
            min_count: Minimum count of a word. Defaults to 5.
            unk: Whether to append the word ``UNK``, which replaces every rare word, as in the
                released lists. Without it, rare words are dropped from captions. Defaults to
                False.

        Returns:
            The words by decreasing count, equal counts in alphabetical order, with ``UNK`` last.

        Raises:
            UserError: If no word occurs ``min_count`` times.
        """
        counts: Counter[str] = Counter()
        for caption in captions:
            counts.update(tokenize(caption))
        frequent = [word for word, count in counts.items() if count >= min_count]
        if not frequent:
            raise UserError(
                f"none of {len(counts)} words occurs min_count={min_count} times: "
                "lower min_count or pass more captions"
            )
        words = sorted(frequent, key=lambda word: (-counts[word], word))
        return cls([*words, UNKNOWN] if unk else words)

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> "Vocabulary":
        """Read a ``vocabulary.txt``: one word per line, from index 1 on.

        Args:
            path: The file, UTF-8.

        Returns:
            The vocabulary, with the indices of the file.

        Raises:
            MissingFileError: If the file does not exist.
            UserError: If a line is empty, contains several words or repeats one.
        """
        path = Path(path)
        if not path.is_file():
            raise MissingFileError(
                f"no vocabulary at {path}; make one with: "
                f"pcm build-vocabulary CAPTIONS --out {shlex.quote(str(path))}"
            )
        lines = path.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
        try:
            return cls(line.strip() for line in lines)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def to_file(self, path: str | os.PathLike) -> None:
        """Write the words, one per line, in UTF-8; an existing file is replaced atomically."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, "".join(f"{word}\n" for word in self.words).encode())

    def index(self, word: str) -> int | None:
        """Return the index of a word, or None if it is not in the vocabulary."""
        return self._index.get(word)

    def split(self, caption: str) -> list[str]:
        """Split a caption into words.

        If every whitespace-separated token of the caption is in the vocabulary, these tokens are
        the words, so that a sentence from :meth:`decode` (an imported caption with ``&`` or
        ``UNK``, say) has exactly the indices it was decoded from. Any other caption is tokenized.

        Args:
            caption: One sentence.

        Returns:
            The words, including unknown ones.
        """
        tokens = caption.split()
        return tokens if all(token in self._index for token in tokens) else tokenize(caption)

    def encode(self, caption: str, max_len: int = 20) -> "tuple[Tensor, Tensor]":
        """Convert a caption to the decoder's input and target, as the released data have them.

        Unknown words become ``UNK`` if the vocabulary has that word, and are dropped otherwise.
        The target of up to ``max_len - 1`` words ends with EOS. A longer caption is truncated to
        ``max_len`` words without EOS, since the sentence does not end there.

        Args:
            caption: One sentence.
            max_len: Length T of the sequences. Defaults to 20, the released length.

        Returns:
            ``input_ids`` (T,) int64, which are 0, the words, then zeros; and ``target_ids`` (T,)
            int64, which are the words, 0 if there is room for it, then -1.

        Raises:
            UserError: If ``max_len`` is below 1.
        """
        import torch

        if max_len < 1:
            raise UserError(f"max_len must be at least 1, got {max_len}")
        indices = (self._index.get(word, self._unknown) for word in self.split(caption))
        ids = [index for index in indices if index is not None][:max_len]
        padding = max_len - 1 - len(ids)
        if padding < 0:
            return torch.tensor([EOS_ID, *ids[:-1]]), torch.tensor(ids)
        return (
            torch.tensor([EOS_ID, *ids] + [EOS_ID] * padding),
            torch.tensor([*ids, EOS_ID] + [IGNORE_INDEX] * padding),
        )

    def encode_batch(self, captions: Sequence[str], max_len: int = 20) -> "tuple[Tensor, Tensor]":
        """Encode several captions, truncated to the length of the longest.

        Args:
            captions: B sentences.
            max_len: Upper bound of T. Defaults to 20.

        Returns:
            ``input_ids`` and ``target_ids``, both (B, T) int64, as :meth:`encode` returns them.
        """
        import torch

        inputs, targets = map(
            torch.stack, zip(*(self.encode(c, max_len) for c in captions), strict=True)
        )
        longest = int((targets != IGNORE_INDEX).sum(1).max())
        return inputs[:, :longest], targets[:, :longest]

    def decode(self, ids: Iterable[int], keep_eos: bool = False) -> str:
        """Convert indices to a sentence, up to the first 0.

        Args:
            ids: Word indices without the leading BOS.
            keep_eos: Whether to print EOS as in the released code: ``'a dog .'``. Defaults to
                False.

        Returns:
            The words separated by single spaces.
        """
        words = []
        for index in map(int, ids):
            if index == EOS_ID:
                if keep_eos:
                    words.append(".")
                break
            words.append(self.words[index - 1])
        return " ".join(words)
