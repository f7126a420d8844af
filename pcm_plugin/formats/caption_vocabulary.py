"""Interface of vocabularies, and the sequences that decoders are trained on."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar

from pcm_plugin.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

EOS_ID = 0
"""Index of EOS, which is also BOS."""

IGNORE_INDEX = -1
"""Index in target sequences that the loss ignores."""


class CaptionVocabulary(ABC):
    """Base class of vocabularies: tokens and their indices.

    Index 0 is both BOS and EOS, and is not a token.

    Attributes:
        unit: Name of the tokens in messages, such as ``'words'``.
    """

    unit: ClassVar[str]

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of indices, including EOS."""

    @abstractmethod
    def __contains__(self, token: str) -> bool: ...

    @abstractmethod
    def split(self, caption: str) -> list[str]:
        """Return the tokens of a caption, including unknown ones."""

    @abstractmethod
    def to_ids(self, caption: str) -> list[int]:
        """Return the indices of all tokens of a caption, without EOS."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of indices without the leading BOS, up to the first 0."""

    @abstractmethod
    def to_file(self, path: str | PathLike) -> None:
        """Write the vocabulary; an existing file is replaced atomically."""

    @abstractmethod
    def to_json(self) -> Any:
        """Return the content as a JSON value, see :func:`.vocabulary_from_json`."""

    def truncate(self, ids: list[int], length: int) -> list[int]:
        """Return the first indices of a caption that is too long.

        Args:
            ids: The indices.
            length: Maximum number of indices to keep.
        """
        return ids[:length]

    def encode(self, caption: str, max_len: int = 20) -> "tuple[Tensor, Tensor]":
        """Convert a caption to the decoder's input and target, as the released data have them.

        The target of up to ``max_len - 1`` tokens ends with EOS. A longer caption is truncated
        (:meth:`truncate`) without EOS, since the sentence does not end there.

        Args:
            caption: One sentence.
            max_len: Length T of the sequences. Defaults to 20, the released length.

        Returns:
            ``input_ids`` (T,) int64, which are 0, the tokens, then zeros; and ``target_ids`` (T,)
            int64, which are the tokens, 0 if there is room for it, then -1.

        Raises:
            UserError: If ``max_len`` is below 1.
        """
        import torch

        if max_len < 1:
            raise UserError(f"max_len must be at least 1, got {max_len}")
        ids = self.to_ids(caption)
        targets = [*ids, EOS_ID] if len(ids) < max_len else self.truncate(ids, max_len)
        padding = max_len - len(targets)
        return (
            torch.tensor([EOS_ID, *targets[:-1]] + [EOS_ID] * padding),
            torch.tensor(targets + [IGNORE_INDEX] * padding),
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
