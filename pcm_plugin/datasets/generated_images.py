"""Pixels of the images in the archives of ``tools/generate.py``, by the images' ids."""

import io
import json
import os
import tarfile
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm

from pcm_plugin.datasets.images import read_image
from pcm_plugin.datasets.shards import ShardFolder


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
        FileNotFoundError: If there is no such folder.
        ValueError: If it is unfinished, or an archive is not as it was written.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        folder = ShardFolder(path, None)
        if not folder.complete:
            raise ValueError(
                f"{path} has {len(folder.shards)} of {folder.manifest['expected']} shards: run the "
                "command that made it again"
            )
        self._places: dict[str, _Place] = {}
        many = len(folder.shards) > 100
        for name in tqdm(folder.shards, desc="archives", unit="shard", disable=not many):
            self._places |= _places(self.path / f"{name}.tar")

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._places

    def read(self, image_id: str) -> Image.Image:
        """Read an image.

        Args:
            image_id: Its id.

        Returns:
            The image, RGB.

        Raises:
            KeyError: If there is no such image.
            ValueError: If it cannot be read.
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
                found[str(json.load(about)["id"])] = last
    except (tarfile.TarError, json.JSONDecodeError, KeyError) as error:
        raise ValueError(
            f"{path} is not as it was written ({error}): delete it, and run the command that made "
            "it again"
        ) from error
    return found
