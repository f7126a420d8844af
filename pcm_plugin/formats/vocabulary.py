"""Word-level vocabulary of a captioner."""

import os
import shlex
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import write_bytes
from pcm_plugin.formats.caption_vocabulary import EOS_ID, CaptionVocabulary
from pcm_plugin.formats.tokenize import tokenize

UNKNOWN = "UNK"
"""Word that replaces all words outside of a vocabulary; the last word of the released lists."""


class Vocabulary(CaptionVocabulary):
    """Words and their indices.

    Index 0 is both BOS and EOS and is not in ``words``; the first word has index 1. This is the
    layout of the released ``vocabulary.txt`` files, which can be read as they are.

    Args:
        words: The words in the order of their indices, from index 1 on.

    Raises:
        UserError: If a word is empty, contains white space or is repeated.
    """

    unit = "words"

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

    def to_json(self) -> list[str]:
        """Return the words."""
        return self.words

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

    def to_ids(self, caption: str) -> list[int]:
        """Return the indices of the words of a caption.

        Unknown words become ``UNK`` if the vocabulary has that word, and are dropped otherwise.
        """
        indices = (self._index.get(word, self._unknown) for word in self.split(caption))
        return [index for index in indices if index is not None]

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
