"""The prompts of a caption file, in shards: one per caption, or one per distinct text."""

import hashlib
import itertools
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from pcm_plugin.formats.atomic_io import write_json
from pcm_plugin.formats.captions.caption_file import Caption, CaptionFile
from pcm_plugin.formats.image_shards import REPEATS

_POLL_SECONDS = 0.1


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


def write_repeats(folder: Path, repeats: dict[int, list[str]], shard_size: int) -> None:
    """Write the captions that share the image of an equal text; several processes may do so.

    Args:
        folder: Folder of generated images.
        repeats: Caption ids by the position of the prompt, as :class:`Prompts` has them.
        shard_size: Prompts per shard.
    """
    content: dict[str, dict[str, list[str]]] = {}
    for position, ids in repeats.items():
        content.setdefault(shard_name(position // shard_size), {})[image_key(position)] = ids
    path = folder / REPEATS
    while not path.is_file() or json.loads(path.read_text(encoding="utf-8")) != content:
        try:
            write_json(path, content)
        except BlockingIOError:  # another process writes the same
            time.sleep(_POLL_SECONDS)


def shard_name(index: int) -> str:
    """Return the name of a shard."""
    return f"shard-{index:05d}"


def image_key(position: int) -> str:
    """Return the name, in an archive, of the image of a prompt."""
    return f"{position:08d}"
