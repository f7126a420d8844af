"""Where images with captions come from: shards that ``generate`` wrote, or files in folders."""

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import fingerprint, sha256
from pcm_plugin.formats.captions.by_image import group_by_image
from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.coco import CocoImage, all_images
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
from pcm_plugin.formats.released_annotations import read_released_annotations
from pcm_plugin.formats.shards import Shard, shard_name
from pcm_plugin.formats.vocabulary import Vocabulary
from pcm_plugin.synthesis.ranks import Rank

PROBE_FILES = 20
"""Files of which one must be there before any work starts."""

logger = logging.getLogger(__name__)


class SourceImage(NamedTuple):
    """An image that is not decoded yet, and its captions.

    Attributes:
        image_id: Its id.
        captions: Its captions.
        name: Its file, or its place in an archive.
        encoded: The bytes of the image, or its file.
        is_file: Whether ``name`` is a file of its own.
        clip_scores: 2.5 * cosine of each caption, where annotations have it.
    """

    image_id: str
    captions: list[str]
    name: str
    encoded: bytes | Path
    is_file: bool
    clip_scores: list[float] | None = None

    def data(self) -> bytes:
        """The bytes of the image.

        Raises:
            OSError: If its file is missing or cannot be read.
            UserError: If it is a folder, or larger than 2 GiB.
        """
        return self.encoded if isinstance(self.encoded, bytes) else read_file(self.encoded)

    def as_record(self) -> dict[str, Any]:
        """What a feature store keeps of it."""
        record: dict[str, Any] = {"image_id": self.image_id, "captions": self.captions}
        return record | ({"file_name": self.name} if self.is_file else {})


class Source(Protocol):
    """Images with captions, in shards of a fixed order."""

    settings: dict[str, Any]
    shards: list[Shard]
    has_clip_scores: bool

    def read(self, shard: Shard) -> Iterator[SourceImage]:
        """Read the images of one shard."""


class GeneratedImages:
    """The shards of ``tools/generate.py``; an image's id is its caption's, or made from it.

    Raises:
        UserError: If the folder is unfinished, or files are missing or cut.
    """

    has_clip_scores = False

    def __init__(self, path: Path) -> None:
        self._folder = open_image_shards(path)
        self._folder.check_complete()
        self._repeats = read_repeats(self._folder)
        self.settings: dict[str, Any] = {"images": self._folder.manifest["fingerprint"]}
        # The count grows with the captions that images stand for; the shard is then extracted again.
        digests = source_digests(self._folder)
        self.shards = [
            Shard(name, count, digests[name])
            for name, count in caption_counts(self._folder).items()
        ]

    def read(self, shard: Shard) -> Iterator[SourceImage]:
        """Read the images of one archive in its order.

        Raises:
            UserError: If it does not hold what was written.
        """
        repeats = self._repeats.get(shard.name, {})
        for entry, data in read_image_shard(self._folder, shard.name):
            place = f"{archive_name(shard.name)}/{entry.name}"
            # Captions of equal text share the image; the caption is listed once for each of them.
            captions = [entry.facts["caption"]] * (1 + len(repeats.get(entry.prompt_key, [])))
            yield SourceImage(entry.facts["id"], captions, place, data, False)


class ImageFolder:
    """Image files with captions, or without.

    Args:
        path: Folder of the images.
        images: Which files, and their captions.
        shard_size: Images a shard.
        settings: What tells this list of images from another.
        clip_scores: 2.5 * cosine of each caption by the image's id, where annotations have it.

    Raises:
        MissingFileError: If none of the first images is there.
        UserError: If there are no images, images share an id, or ``shard_size`` is less than 1.
    """

    def __init__(
        self,
        path: Path,
        images: list[CocoImage],
        shard_size: int,
        settings: dict[str, Any],
        clip_scores: Mapping[str, list[float]] | None = None,
    ) -> None:
        if shard_size < 1:
            raise UserError(f"shard_size={shard_size}: give at least 1")
        if not images:
            raise UserError(f"no images for {path}")
        refuse_repeated(
            lambda: (image.image_id for image in images),
            f"image ids of {path}",
            "give every image an id of its own",
        )
        first = [path / find_name(path, image.file_name) for image in images[:PROBE_FILES]]
        if not any(file.is_file() for file in first):
            raise MissingFileError(
                f"no {first[0]}, nor the files after it: the captions name other files than "
                f"{path} holds"
            )
        self._path = path
        self._names = {image.file_name for image in images}
        self._clip_scores = clip_scores or {}
        self.has_clip_scores = bool(self._clip_scores)
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
        """Read one part of the list, in its order."""
        for image_id, file_name, captions in self._chunks[shard.name]:
            name, scores = self._find(file_name), self._clip_scores.get(image_id)
            yield SourceImage(image_id, captions, name, self._path / name, True, scores)

    def _find(self, file_name: str) -> str:
        found = find_name(self._path, file_name)
        return file_name if found in self._names else found


def caption_file_images(captions: CaptionFile) -> list[CocoImage]:
    """Return the image files that a caption file names, with all their captions.

    Raises:
        UserError: If a caption names no image file, or images share an id.
    """
    images = group_by_image(captions)
    unnamed = [image.image_id for image in images if not image.file_name]
    if unnamed:
        raise UserError(
            f"{captions.path}: image {unnamed[0]} has no file name; pass COCO captions JSON, "
            "Karpathy's JSON, a Flickr token file, or a table or JSONL with file_name"
        )
    return images


def released_images(
    annotations: Path, vocabulary: str | os.PathLike, path_template: str | None
) -> tuple[list[CocoImage], dict[str, list[float]]]:
    """Return the images of SynthImgCap, with captions decoded from the released annotations.

    Args:
        annotations: The released pickle, read without executing it.
        vocabulary: The ``vocabulary.txt`` released with it.
        path_template: Where an image lies, with ``{split_id}`` and ``{image_id}``. None for
            ``'{split_id}/{image_id}.jpg'``, or without the first if there are no parts.

    Returns:
        The images, and the CLIP scores of their captions by the images' ids, where they are given.

    Raises:
        UserError: If path_template, annotations or vocabulary are not what they should be.
    """
    pairs = read_released_annotations(annotations, Vocabulary.from_file(vocabulary))
    parts = pairs[0].split_id is not None
    path_template = path_template or ("{split_id}/{image_id}.jpg" if parts else "{image_id}.jpg")
    images = [CocoImage(p.key, p.format_path(path_template), p.captions) for p in pairs]
    return images, {p.key: p.clip_scores for p in pairs if p.clip_scores is not None}


def open_source(
    path: str | os.PathLike,
    captions: CaptionFile | str | os.PathLike | None,
    shard_size: int,
    vocabulary: str | os.PathLike | None = None,
    path_template: str | None = None,
) -> Source:
    """Tell generated shards from a folder of image files.

    Args:
        path: The folder.
        captions: For image files, and only for them: a caption file that names images, the
            released annotation pickle, or ``'none'`` for all images below the folder, without
            captions.
        shard_size: Images a shard, for image files.
        vocabulary: For the released pickle.
        path_template: For the released pickle: where its images lie.

    Raises:
        MissingFileError: If there is no such folder or file.
        UserError: If ``captions`` is missing, given in vain, or not what it should be.
    """
    path = Path(path)
    if not path.is_dir():
        raise MissingFileError(f"no folder of images at {path}")
    generated = (path / "manifest.json").is_file()
    if generated and captions is not None:
        raise UserError(
            f"{path} holds generated images, which bring their captions: drop --captions"
        )
    if generated:
        return GeneratedImages(path)
    if captions is None:
        raise UserError(
            f"{path} has no manifest.json of tools/generate.py: if it holds image files, "
            "give their captions with --captions, or --captions none"
        )
    if captions == "none":
        return ImageFolder(
            path,
            all_images(path, Rank.from_environment().index == 0),
            shard_size,
            {"captions": None},
        )
    if not isinstance(captions, CaptionFile) and Path(captions).suffix in (".pkl", ".pickle"):
        if vocabulary is None:
            raise UserError(f"{captions} holds numbers for words: give its vocabulary.txt too")
        released, scores = released_images(Path(captions), vocabulary, path_template)
        hashes = _input_hashes(captions, vocabulary=vocabulary)
        try:
            return ImageFolder(path, released, shard_size, hashes, scores)
        except FileNotFoundError as error:
            raise MissingFileError(f"{error}: --path-template says where they lie") from None
    file = CaptionFile.of(captions)
    options = {} if file.split is None else {"split": file.split}
    return ImageFolder(
        path, caption_file_images(file), shard_size, _input_hashes(file.path) | options
    )


def _input_hashes(captions: str | os.PathLike, **others: str | os.PathLike) -> dict[str, str]:
    files = {"captions": captions, **others}
    return {name: f"sha256 {sha256(Path(file))[:16]}" for name, file in files.items()}
