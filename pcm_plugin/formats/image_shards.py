"""Pixels of the images in the archives of ``tools/generate.py``, by the images' ids."""

import io
import json
import os
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from tqdm import tqdm

from pcm_plugin.errors import UserError
from pcm_plugin.formats.atomic_io import fingerprint
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.image_ids import name_some
from pcm_plugin.formats.images.image_io import read_image
from pcm_plugin.formats.shards import ShardFolder

REPEATS = "repeats.json"
"""File of a folder of images that were generated once per distinct text, see `read_repeats`."""


def read_repeats(folder: Path, settings: dict[str, Any]) -> dict[str, dict[str, list[str]]]:
    """Read which captions share the image of an equal text.

    Args:
        folder: Folder of generated images.
        settings: The settings in its manifest.

    Returns:
        By the name of a shard and the key of an image in its archive, the ids of the further
        captions; empty for images that were generated for each caption.

    Raises:
        UserError: If the file is missing.
    """
    if not settings.get("unique"):
        return {}
    try:
        return json.loads((folder / REPEATS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{folder / REPEATS} is missing: run the command that made {folder} again"
        ) from None


def count_captions(folder: ShardFolder) -> tuple[int, int]:
    """Count the captions that generated images stand for.

    Args:
        folder: A folder of ``tools/generate.py``.

    Returns:
        Captions with an image; and captions without one, because all of their images were left
        out, or those of an equal text were.
    """
    settings = folder.manifest["settings"]
    repeats, each = read_repeats(folder.path, settings), settings.get("images_per_caption", 1)
    total = without = 0
    for name, record in folder.shards.items():
        further = {key: len(ids) for key, ids in repeats.get(name, {}).items()}
        total += record["num_source"] // each + sum(further.values())
        skipped = Counter(key.partition("-")[0] for key in record["skipped"])
        without += sum(1 + further.get(key, 0) for key, n in skipped.items() if n == each)
    return total - without, without


def archive_digests(folder: ShardFolder) -> dict[str, str]:
    """Return what the content of each archive is known by in a store that was extracted from it.

    Args:
        folder: A folder of generated images.

    Returns:
        By the name of a shard, the SHA-256 of its archive, and where its images stand for further
        captions a fingerprint of both.

    Raises:
        UserError: If its shards are no archives of images.
    """
    repeats = read_repeats(folder.path, folder.manifest["settings"])
    digests = {}
    for name, record in folder.shards.items():
        if f"{name}.tar" not in record["files"]:
            raise UserError(
                f"{folder.path} holds {folder.manifest['format']!r}, not images: pass the folder "
                "of tools/generate.py or tools/import_images.py"
            )
        sha256 = record["files"][f"{name}.tar"]["sha256"]
        digests[name] = fingerprint([sha256, repeats[name]]) if name in repeats else sha256
    return digests


class _Place(NamedTuple):
    shard: str
    offset: int
    size: int


class GeneratedImageArchive:
    """Reads single images of a folder of shards, without unpacking them.

    The archives' headers are read once; an image is then one read from its archive. Holds no open
    file, so that workers may share it.

    Args:
        path: Folder of ``tools/generate.py``.

    Raises:
        MissingFileError: If there is no such folder.
        UserError: If it is unfinished, does not hold images, an archive is not as it was written,
            or two images share an id.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        folder = ShardFolder(path, None)
        if not folder.complete:
            raise UserError(
                f"{path} has {len(folder.shards)} of {folder.manifest['num_expected']} shards: run the "
                "command that made it again"
            )
        self._digests = {*archive_digests(folder).values()}
        self._places: dict[str, _Place] = {}
        many = len(folder.shards) > 100
        for name in tqdm(folder.shards, desc="archives", unit="shard", disable=not many):
            found = _places(self.path / f"{name}.tar")
            repeated = [image_id for image_id in found if image_id in self._places]
            if repeated:
                raise UserError(_repeated(self.path, repeated))
            self._places |= found

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._places

    def check_store(self, store: FeatureStore) -> None:
        """Check that a store was extracted from these archives, so that ids are of equal images.

        Raises:
            UserError: If it was made of other images, though their ids may be the same.
        """
        if not self._digests.issuperset(store.digests):
            raise UserError(
                f"{store.path} was not extracted from the images in {self.path} as they are now: "
                "pass the folder that it was extracted from, or run tools/extract.py again"
            )

    def read(self, image_id: str) -> Image.Image:
        """Read an image.

        Args:
            image_id: Its id.

        Returns:
            The image, RGB.

        Raises:
            KeyError: If there is no such image.
            UserError: If it cannot be read.
        """
        place = self._places[image_id]
        with open(self.path / place.shard, "rb") as file:
            file.seek(place.offset)
            return read_image(io.BytesIO(file.read(place.size)))


def _places(path: Path) -> dict[str, _Place]:
    """Where the images of an archive lie; an image stands before its ``.json``."""
    found, last = {}, None
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.name.endswith(".json"):
                    last = _Place(path.name, member.offset_data, member.size)
                    continue
                about = tar.extractfile(member)
                if about is None or last is None:
                    raise tarfile.TarError(f"{member.name} describes no image")
                image_id = str(json.load(about)["id"])
                if image_id in found:
                    raise UserError(_repeated(path, [image_id]))
                found[image_id] = last
    except (tarfile.TarError, json.JSONDecodeError, KeyError) as error:
        raise UserError(
            f"{path} is not as it was written ({error}): delete it, and run the command that made "
            "it again"
        ) from error
    return found


def _repeated(path: Path, ids: list[str]) -> str:
    return (
        f"image ids of {path} must be unique, but {name_some(ids)} come more than once: generate "
        "the images again from captions with ids that differ"
    )
