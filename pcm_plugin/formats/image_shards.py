"""Generated images in tar shards: the writer, a sequential and a random-access reader.

A folder of format ``pcm-images`` is a :class:`~pcm_plugin.formats.shards.ShardFolder` with

- ``shard-00000.tar``, ...: for each image ``KEY.SUFFIX`` and then ``KEY.json``, the WebDataset
  convention. The JSON object holds at least ``id`` (of the image) and ``caption``. ``KEY`` is the
  eight-digit position of the prompt, followed by ``-0``, ``-1``, ... where a prompt has several
  images;
- ``repeats.json``, only if images were generated once per distinct text: the captions that share an
  image, see :func:`read_repeats`.
"""

import contextlib
import io
import json
import os
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from tqdm import tqdm

from pcm_plugin.errors import LockedError, UserError
from pcm_plugin.formats.atomic_io import atomic_write, fingerprint, write_json
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.image_ids import name_some
from pcm_plugin.formats.images.image_io import read_image
from pcm_plugin.formats.shards import ShardFolder, shard_name

FORMAT = "pcm-images"
"""Format name in the manifest."""

REPEATS = "repeats.json"
"""File with the captions that share an image."""

_POLL_SECONDS = 0.1
_PROGRESS_FROM = 100  # shards


class ImageShardWriter:
    """Appends images to the archive of one shard; see :func:`write_image_shard`."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar

    def append(self, key: str, suffix: str, image: bytes, facts: dict[str, Any]) -> None:
        """Append ``KEY.SUFFIX`` and ``KEY.json``.

        Equal arguments append equal bytes: entries have no owner and no modification time.

        Args:
            key: Base name of both entries, see :func:`image_key`.
            suffix: File name suffix of the image, without the dot.
            image: The encoded image.
            facts: JSON values that describe it, with ``id`` and ``caption``.
        """
        text = json.dumps(facts, ensure_ascii=False, sort_keys=True).encode()
        for name, data in ((f"{key}.{suffix}", image), (f"{key}.json", text)):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            self._tar.addfile(entry, io.BytesIO(data))


@contextlib.contextmanager
def write_image_shard(folder: Path, name: str) -> Iterator[ImageShardWriter]:
    """Write the archive of one shard atomically.

    Args:
        folder: Folder of the shards.
        name: Name of the shard.

    Yields:
        The writer of its images.
    """
    with (
        atomic_write(folder / archive_name(name)) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        yield ImageShardWriter(tar)


def archive_name(shard: str) -> str:
    """Return the file name of a shard's archive."""
    return f"{shard}.tar"


def image_key(position: int, number: int | None = None) -> str:
    """Return the name of an image in its archive, without a suffix.

    Args:
        position: Position of the prompt over all shards.
        number: Number of the image where a prompt has several. Defaults to None.
    """
    return f"{position:08d}" if number is None else f"{position:08d}-{number}"


class ImageEntry(NamedTuple):
    """An image in an archive.

    Attributes:
        name: File name in the archive, such as ``'00000042.png'``.
        facts: Content of its ``.json``.
        offset: Position of the encoded image in the archive, in bytes.
        size: Size of the encoded image in bytes.
    """

    name: str
    facts: dict[str, Any]
    offset: int
    size: int

    @property
    def prompt_key(self) -> str:
        """Key of the prompt, without the number of the image."""
        return self.name.partition(".")[0].partition("-")[0]


def open_image_shards(path: str | os.PathLike) -> ShardFolder:
    """Open a folder of generated images for reading.

    Raises:
        MissingFileError: If the folder does not exist.
        UserError: If it holds something else.
    """
    return ShardFolder(path, FORMAT, "`pcm generate` or `pcm import-images`")


def read_image_shard(folder: ShardFolder, shard: str) -> Iterator[tuple[ImageEntry, bytes]]:
    """Read the images of one shard in the order of its archive.

    Args:
        folder: The folder, see :func:`open_image_shards`.
        shard: Name of the shard.

    Yields:
        Each image with its encoded bytes.

    Raises:
        UserError: If the archive does not hold what was written.
    """
    with open(folder.path / archive_name(shard), "rb") as file:
        for entry in _scan_archive(folder, shard):
            file.seek(entry.offset)
            yield entry, file.read(entry.size)


def _scan_archive(folder: ShardFolder, shard: str) -> Iterator[ImageEntry]:
    path, count, expected = folder.path / archive_name(shard), 0, folder.shards[shard]["count"]
    try:
        with tarfile.open(path, "r:") as tar:
            members = iter(tar)
            for image in members:
                stem = image.name.partition(".")[0]
                facts = next(members, None)
                text = tar.extractfile(facts) if facts and facts.name == f"{stem}.json" else None
                if text is None:
                    raise tarfile.TarError(f"{image.name} is not followed by {stem}.json")
                content = json.load(text)
                content["id"] = str(content["id"])
                yield ImageEntry(image.name, content, image.offset_data, image.size)
                count += 1
        # tarfile takes a damaged header for the end of the archive.
        if count != expected:
            raise tarfile.TarError(f"{count} of {expected} images can be read")
    except (tarfile.TarError, json.JSONDecodeError, KeyError) as error:
        raise UserError(
            f"{path} is not as it was written ({error}): delete it, and run the command that made "
            "it again"
        ) from error


class ImageShardReader:
    """Random access to generated images by their ids, without unpacking the archives.

    The headers of the archives are read once; reading an image is then one read from its archive.
    No file is kept open, so worker processes can share a reader.

    Args:
        path: Folder of the shards.

    Raises:
        MissingFileError: If the folder does not exist.
        UserError: If the folder is incomplete or does not hold images, an archive is damaged, or
            two images share an id.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        folder = open_image_shards(path)
        folder.check_complete()
        self.path = folder.path
        self._digests = {*source_digests(folder).values()}
        self._images: dict[str, tuple[str, int, int, str]] = {}
        shards = tqdm(
            folder.shards,
            desc="archives",
            unit="shard",
            disable=len(folder.shards) < _PROGRESS_FROM,
        )
        for shard in shards:
            for entry in _scan_archive(folder, shard):
                image_id = entry.facts["id"]
                if image_id in self._images:
                    raise UserError(
                        f"image ids of {path} must be unique, but {name_some([image_id])} is "
                        "repeated: generate the images again from captions with unique ids"
                    )
                suffix = entry.name.partition(".")[2]
                self._images[image_id] = archive_name(shard), entry.offset, entry.size, suffix

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._images

    def check_store(self, store: FeatureStore) -> None:
        """Check that a feature store was extracted from these images.

        Raises:
            UserError: If it was extracted from other images, even with the same ids.
        """
        if not self._digests.issuperset(store.digests):
            raise UserError(
                f"{store.path} was not extracted from the images in {self.path} as they are now: "
                "pass the folder that it was extracted from, or run `pcm extract` again"
            )

    def read(self, image_id: str) -> Image.Image:
        """Decode an image.

        Args:
            image_id: Id of the image.

        Returns:
            The image in mode RGB.

        Raises:
            KeyError: If the image does not exist.
            UserError: If the image cannot be decoded.
        """
        return read_image(io.BytesIO(self.read_bytes(image_id)))

    def read_bytes(self, image_id: str) -> bytes:
        """Return the encoded image.

        Raises:
            KeyError: If the image does not exist.
        """
        archive, offset, size, _ = self._images[image_id]
        with open(self.path / archive, "rb") as file:
            file.seek(offset)
            return file.read(size)

    def suffix(self, image_id: str) -> str:
        """Return the suffix of the image's file name, such as ``'.jpg'``."""
        return f".{self._images[image_id][3]}"


def write_repeats(folder: Path, repeats: dict[int, list[str]], shard_size: int) -> None:
    """Write ``repeats.json``; several processes may write the same content at once.

    Args:
        folder: Folder of the shards.
        repeats: Position of a prompt to the ids of the further captions with that text.
        shard_size: Prompts per shard.
    """
    content: dict[str, dict[str, list[str]]] = {}
    for position, ids in repeats.items():
        content.setdefault(shard_name(position // shard_size), {})[image_key(position)] = ids
    path = folder / REPEATS
    while not path.is_file() or json.loads(path.read_text(encoding="utf-8")) != content:
        try:
            write_json(path, content)
        except LockedError:  # another process is writing it
            time.sleep(_POLL_SECONDS)


def read_repeats(folder: ShardFolder) -> dict[str, dict[str, list[str]]]:
    """Read which captions share the image of an equal text.

    Args:
        folder: Folder of generated images.

    Returns:
        Shard name to prompt key to the ids of the further captions. Empty if each caption has an
        image of its own.

    Raises:
        UserError: If the file is missing.
    """
    if not folder.manifest["settings"].get("unique"):
        return {}
    path = folder.path / REPEATS
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: run the command that made {folder.path} again"
        ) from None


def count_captions(folder: ShardFolder) -> tuple[int, int]:
    """Count the captions that generated images stand for.

    Args:
        folder: Folder of generated images.

    Returns:
        The number of captions with an image, and the number of captions without one because all
        images of their text were skipped.
    """
    repeats, each = read_repeats(folder), _images_per_prompt(folder)
    total = without = 0
    for name, record in folder.shards.items():
        further = {key: len(ids) for key, ids in repeats.get(name, {}).items()}
        total += record["num_source"] // each + sum(further.values())
        skipped = Counter(key.partition("-")[0] for key in record["skipped"])
        without += sum(1 + further.get(key, 0) for key, n in skipped.items() if n == each)
    return total - without, without


def caption_counts(folder: ShardFolder) -> dict[str, int]:
    """Return the number of image-caption pairs per shard; images of equal texts have several."""
    repeats, each = read_repeats(folder), _images_per_prompt(folder)
    return {
        name: record["count"] + each * sum(map(len, repeats.get(name, {}).values()))
        for name, record in folder.shards.items()
    }


def source_digests(folder: ShardFolder) -> dict[str, str]:
    """Return a digest of each shard, which a feature store records when it is extracted from it.

    Args:
        folder: Folder of generated images.

    Returns:
        Shard name to the SHA-256 of its archive, or to a fingerprint of both the archive and the
        further captions where its images stand for some.
    """
    repeats = read_repeats(folder)
    digests = {}
    for name, record in folder.shards.items():
        sha256 = record["files"][archive_name(name)]["sha256"]
        digests[name] = fingerprint([sha256, repeats[name]]) if name in repeats else sha256
    return digests


def _images_per_prompt(folder: ShardFolder) -> int:
    return folder.manifest["settings"].get("images_per_caption", 1)
