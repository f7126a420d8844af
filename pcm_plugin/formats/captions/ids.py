"""Find captions that share an id without keeping the ids in memory."""

import hashlib
import tempfile
from typing import Any, NamedTuple

import numpy as np

from pcm_plugin.formats.captions.record import Record

_CHUNK = 1 << 16


class RepeatedIds(NamedTuple):
    """Ids of captions that occur more than once in a file.

    Attributes:
        hashes: Sorted hashes of the ids.
        of_images: Whether they are ids of images, so that captions get ``ID#1``, ``ID#2``, ...
    """

    hashes: np.ndarray
    of_images: bool = False

    def __contains__(self, caption_id: object) -> bool:
        if not len(self.hashes):
            return False
        value = hash_text(str(caption_id))
        where = np.searchsorted(self.hashes, np.uint64(value))
        return bool(where < len(self.hashes) and self.hashes[where] == value)


class IdTable:
    """Ids of captions as hashes in temporary files, so that memory does not grow with their number.

    Use it as a context manager, which deletes the files.
    """

    def __enter__(self) -> "IdTable":
        self._ids, self._ids_and_images = HashColumn(), HashColumn()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ids.close()
        self._ids_and_images.close()

    def add(self, record: Record) -> None:
        """Add the ids of a caption."""
        record_id = caption_id(record)
        self._ids.add(record_id)
        # A number that replaces a missing id never equals an id of the file.
        image = (record.image_id, record.file_name, record.id is None)
        self._ids_and_images.add(f"{record_id}\n{image}")

    def find_repeated(self, may_be_images: bool) -> RepeatedIds:
        """Find the repeated ids after all have been added.

        Args:
            may_be_images: Whether the format allows ids of images. They are if all captions with
                the same id describe the same image, or no image is named.
        """
        hashes = self._ids.repeated()
        consistent = self._ids.count_distinct() == self._ids_and_images.count_distinct()
        return RepeatedIds(hashes, len(hashes) > 0 and may_be_images and consistent)


class HashColumn:
    """Hashes of texts in a temporary file, 8 bytes each."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115

    def add(self, text: str) -> None:
        """Append a text."""
        self._file.write(_digest(text))

    def count_distinct(self) -> int:
        """Count the different texts."""
        hashes = self._sorted()
        return int((hashes[1:] != hashes[:-1]).sum()) + 1 if len(hashes) else 0

    def count_repeats(self) -> int:
        """Count the texts that are equal to one before."""
        hashes = self._sorted()
        return int((hashes[1:] == hashes[:-1]).sum())

    def repeated(self) -> np.ndarray:
        """Return the sorted hashes of texts that occur more than once."""
        hashes = self._sorted()
        return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])

    def missing_in(self, other: "HashColumn") -> np.ndarray:
        """Return the sorted hashes of this column that another column lacks."""
        hashes, others = self._sorted(), other._sorted()
        missing = [np.empty(0, np.uint64)]
        for start in range(0, len(hashes), _CHUNK):
            chunk = hashes[start : start + _CHUNK]
            first, last = np.searchsorted(others, chunk[[0, -1]])
            missing.append(chunk[~np.isin(chunk, others[first : last + 1])])
        return np.unique(np.concatenate(missing))

    def close(self) -> None:
        """Delete the file."""
        self._file.close()

    def _sorted(self) -> np.ndarray:
        if not self._file.tell():
            return np.empty(0, np.uint64)
        self._file.flush()
        hashes = np.memmap(self._file, dtype=np.uint64, mode="r+")
        hashes.sort()
        return hashes


def hash_text(text: str) -> int:
    """Return a hash of 64 bits that is the same in every process."""
    return int(np.frombuffer(_digest(text), np.uint64)[0])


def caption_id(record: Record) -> str:
    """Return the id of a caption in the file, or the number of its line or entry."""
    return str(record.number) if record.id is None else record.id


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
