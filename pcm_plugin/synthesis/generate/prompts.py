"""The prompts of a caption file, in shards: one per caption, or one per distinct text."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator

from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.captions.record import Caption


class Prompts:
    """The captions to generate images for, in chunks of one shard each.

    They are read again from the file each time, and at most one chunk is held. With ``unique``, the
    first caption of each text stands for all captions with equal text, so that later captions never
    change the chunks of earlier ones. That takes a hash per text in memory.

    Args:
        captions: The caption file.
        limit: Take only the first captions.
        size: Captions per chunk.
        unique: Whether to leave out captions whose text occurred before.

    Attributes:
        repeats: With ``unique``, the ids of the captions that were left out, by the position of the
            first caption of that text; filled once the chunks have been iterated over to the end.
    """

    def __init__(
        self, captions: CaptionFile, limit: int | None, size: int, unique: bool = False
    ) -> None:
        self.captions, self._limit, self._size, self._unique = captions, limit, size, unique
        self.repeats: dict[int, list[str]] = {}
        self._ahead, self._next = iter(self), 0

    def __iter__(self) -> Iterator[list[Caption]]:
        captions: Iterable[Caption] = itertools.islice(self.captions, self._limit)
        if self._unique:
            captions = self._first_of_each_text(captions)
        captions = iter(captions)
        while chunk := list(itertools.islice(captions, self._size)):
            yield chunk

    def __getitem__(self, index: int) -> list[Caption]:
        if index < self._next:
            self._ahead, self._next = iter(self), 0
        chunk = next(itertools.islice(self._ahead, index - self._next, None), [])
        self._next = index + 1
        return chunk

    def _first_of_each_text(self, captions: Iterable[Caption]) -> Iterator[Caption]:
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
