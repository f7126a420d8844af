"""Sources of images with captions for the extraction: generated shards, or image files."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import fingerprint
from pcm_plugin.formats.coco import CocoImage
from pcm_plugin.formats.image_ids import refuse_repeated
from pcm_plugin.formats.image_shards import (
    archive_name,
    caption_counts,
    open_image_shards,
    read_image_shard,
    read_repeats,
    source_digests,
)
from pcm_plugin.formats.images.folder import find_name
from pcm_plugin.formats.images.image_io import read_file
from pcm_plugin.formats.shards import Shard, shard_name

PROBE_FILES = 20
"""Number of first files of which one must exist before any work starts."""


class SourceImage(NamedTuple):
    """Encoded image with its captions.

    Attributes:
        image_id: Id of the image.
        captions: Captions of the image.
        name: Name of its file, or of its entry in an archive.
        encoded: Bytes of the encoded image, or the file that contains them.
        is_file: Whether ``name`` is a file of its own.
        clip_scores: 2.5 * cosine of each caption, if annotations contain it.
        num_samples: Number of samples of its shard that the image stands for. Defaults to 1.
    """

    image_id: str
    captions: list[str]
    name: str
    encoded: bytes | Path
    is_file: bool
    clip_scores: list[float] | None = None
    num_samples: int = 1

    def data(self) -> bytes:
        """Return the bytes of the encoded image.

        Raises:
            OSError: If its file is missing or cannot be read.
            UserError: If it is a folder, or larger than 2 GiB.
        """
        return self.encoded if isinstance(self.encoded, bytes) else read_file(self.encoded)

    def as_record(self) -> dict[str, Any]:
        """Return the record of the image in a feature store."""
        record: dict[str, Any] = {"image_id": self.image_id, "captions": self.captions}
        return record | ({"file_name": self.name} if self.is_file else {})


class Source(Protocol):
    """Images with captions, in shards of a fixed order.

    Attributes:
        settings: JSON values that identify the images and captions.
        shards: The shards. Their counts are in ``unit``.
        unit: ``'img'`` for images, ``'pair'`` for pairs of an image and a caption.
        num_images: Number of images.
        num_scored: Number of images for whose captions annotations contain CLIP scores.
    """

    settings: dict[str, Any]
    shards: list[Shard]
    unit: str
    num_images: int
    num_scored: int

    def read(self, shard: Shard) -> Iterator[SourceImage]:
        """Read the images of one shard."""


class GeneratedImages:
    """Images of ``pcm generate`` or ``pcm import-images``.

    The id of an image is that of its caption, or derived from it if a caption has several images.

    Args:
        path: Folder of the image shards.

    Raises:
        UserError: If the folder is unfinished, or files are missing or truncated.
    """

    unit = "pair"
    num_scored = 0

    def __init__(self, path: Path) -> None:
        self._folder = open_image_shards(path)
        self._folder.check_complete()
        self._repeats = read_repeats(self._folder)
        self.num_images = sum(record["count"] for record in self._folder.shards.values())
        self.settings: dict[str, Any] = {"images": self._folder.manifest["fingerprint"]}
        # The count grows with the captions that share an image; the shard is then extracted again.
        digests = source_digests(self._folder)
        self.shards = [
            Shard(name, count, digests[name])
            for name, count in caption_counts(self._folder).items()
        ]

    def read(self, shard: Shard) -> Iterator[SourceImage]:
        """Read the images of one shard in the order of its archive.

        Raises:
            UserError: If the archive does not contain what was written.
        """
        repeats = self._repeats.get(shard.name, {})
        for entry, data in read_image_shard(self._folder, shard.name):
            name = f"{archive_name(shard.name)}/{entry.name}"
            # Captions of equal text share the image; the caption is listed once for each of them.
            count = 1 + len(repeats.get(entry.prompt_key, []))
            captions = [entry.facts["caption"]] * count
            yield SourceImage(entry.facts["id"], captions, name, data, False, num_samples=count)


class ImageFolder:
    """Image files, with or without captions.

    Args:
        path: Folder of the images.
        images: Files with their captions.
        shard_size: Images per shard.
        settings: JSON values that identify the list of images.
        clip_scores: 2.5 * cosine of each caption by image id, for images whose annotations contain
            it. Defaults to None.

    Raises:
        MissingFileError: If none of the first files exists.
        UserError: If there are no images, images share an id, or ``shard_size`` is less than 1.
    """

    unit = "img"

    def __init__(
        self,
        path: Path,
        images: list[CocoImage],
        shard_size: int,
        settings: dict[str, Any],
        clip_scores: Mapping[str, list[float]] | None = None,
    ) -> None:
        if shard_size < 1:
            raise UserError(f"shard_size must be at least 1, got {shard_size}")
        if not images:
            raise UserError(f"there are no images for {path}")
        refuse_repeated(
            lambda: (image.image_id for image in images),
            f"image ids of {path}",
            "give each image a different id",
        )
        first = [path / find_name(path, image.file_name) for image in images[:PROBE_FILES]]
        if not any(file.is_file() for file in first):
            raise MissingFileError(
                f"neither {first[0]} nor the files after it exist: the file names of the captions "
                f"are not those in {path}"
            )
        self._path = path
        self._names = {image.file_name for image in images}
        self._clip_scores = clip_scores or {}
        self.num_images = len(images)
        self.num_scored = sum(image.image_id in self._clip_scores for image in images)
        self._chunks = {
            shard_name(number): images[start : start + shard_size]
            for number, start in enumerate(range(0, len(images), shard_size))
        }
        self.settings: dict[str, Any] = {**settings, "shard_size": shard_size}
        self.shards = [
            Shard(name, len(chunk), fingerprint([list(image) for image in chunk]))
            for name, chunk in self._chunks.items()
        ]

    def read(self, shard: Shard) -> Iterator[SourceImage]:
        """Read one shard in the order of the list."""
        for image_id, file_name, captions in self._chunks[shard.name]:
            name, scores = self._find(file_name), self._clip_scores.get(image_id)
            yield SourceImage(image_id, captions, name, self._path / name, True, scores)

    def _find(self, file_name: str) -> str:
        found = find_name(self._path, file_name)
        return file_name if found in self._names else found
