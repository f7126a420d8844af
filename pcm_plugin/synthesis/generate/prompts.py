"""Prompts of a caption file in chunks: one per caption, or one per distinct text."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator

from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.captions.record import Caption


class Prompts:
    """Captions to generate images for, in chunks of one shard each.

    The file is read again for each pass, and at most one chunk is in memory. With ``unique``, the
    first caption of each text represents all captions of equal text, so captions that are appended
    to the file never change earlier chunks. This needs one hash per text in memory.

    Args:
        captions: The caption file.
        limit: Use only the first ``limit`` captions. None uses all.
        size: Captions per chunk.
        unique: Whether to omit captions whose text occurred before. Defaults to False.

    Attributes:
        repeats: With ``unique``, the ids of the omitted captions, by the position of the first
            caption of equal text. Complete after one full iteration over the chunks.
    """

    def __init__(
        self, captions: CaptionFile, limit: int | None, size: int, unique: bool = False
    ) -> None:
        self.captions, self._limit, self._size, self._unique = captions, limit, size, unique
        self.repeats: dict[int, list[str]] = {}
        self._iterator, self._next = iter(self), 0

    def __iter__(self) -> Iterator[list[Caption]]:
        captions: Iterable[Caption] = itertools.islice(self.captions, self._limit)
        if self._unique:
            captions = self._distinct(captions)
        captions = iter(captions)
        while chunk := list(itertools.islice(captions, self._size)):
            yield chunk

    def __getitem__(self, index: int) -> list[Caption]:
        if index < self._next:
            self._iterator, self._next = iter(self), 0
        chunk = next(itertools.islice(self._iterator, index - self._next, None), [])
        self._next = index + 1
        return chunk

    def _distinct(self, captions: Iterable[Caption]) -> Iterator[Caption]:
        positions: dict[bytes, int] = {}
        repeats: dict[int, list[str]] = {}
        for caption in captions:
            new = len(positions)
            key = hashlib.blake2b(caption.text.encode(), digest_size=16).digest()
            position = positions.setdefault(key, new)
            if position == new:
                yield caption
            else:
                repeats.setdefault(position, []).append(caption.id)
        self.repeats = repeats
