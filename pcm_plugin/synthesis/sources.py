"""Where images with captions come from: shards that ``generate`` wrote, or a folder."""

import io
import itertools
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from PIL import Image

from pcm_plugin.datasets.coco import read_coco_images
from pcm_plugin.datasets.durable import fingerprint, sha256
from pcm_plugin.datasets.shards import ShardFolder
from pcm_plugin.synthesis import generate
from pcm_plugin.synthesis.sharing import Shard


class CaptionedImage(NamedTuple):
    """An image that is not decoded yet, and its captions.

    Attributes:
        image_id: Its id.
        captions: Its captions.
        name: Its file, or its place in an archive.
        encoded: The bytes of the image, or its file.
        is_file: Whether ``name`` is a file of its own.
    """

    image_id: str
    captions: list[str]
    name: str
    encoded: bytes | Path
    is_file: bool

    def decode(self) -> Image.Image:
        """Read the image."""
        encoded = self.encoded
        return Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded)

    def as_record(self) -> dict[str, Any]:
        """What a feature store keeps of it."""
        record: dict[str, Any] = {"image_id": self.image_id, "captions": self.captions}
        return record | ({"file_name": self.name} if self.is_file else {})


class Source(Protocol):
    """Images with captions, in shards of a fixed order."""

    settings: dict[str, Any]
    shards: list[Shard]

    def read(self, shard: Shard) -> Iterator[CaptionedImage]:
        """Read the images of one shard."""


class GeneratedImages:
    """The shards of ``tools/generate.py``; an image's id is its caption's, or made from it.

    Raises:
        ValueError: If the folder is unfinished, or files are missing or cut.
    """

    def __init__(self, path: Path) -> None:
        folder = ShardFolder(path, generate.FORMAT)
        if not folder.complete:
            raise ValueError(
                f"{path} has {len(folder.shards)} of {folder.manifest['expected']} shards: "
                "run the same tools/generate.py command again to finish it"
            )
        damaged = folder.damaged(checksums=False)
        if damaged:
            raise ValueError(
                f"files of {path} are missing or cut: {', '.join(damaged)}; "
                "run the same tools/generate.py command again to make them anew"
            )
        self._path = path
        self.settings: dict[str, Any] = {"images": folder.manifest["fingerprint"]}
        self.shards = [
            Shard(name, record["count"], record["files"][f"{name}.tar"]["sha256"])
            for name, record in folder.shards.items()
        ]

    def read(self, shard: Shard) -> Iterator[CaptionedImage]:
        """Read the images of one archive in its order."""
        with tarfile.open(self._path / f"{shard.name}.tar", "r:") as tar:
            for _, members in itertools.groupby(tar, lambda m: m.name.partition(".")[0]):
                files = {m.name: tar.extractfile(m).read() for m in members}  # type: ignore
                text = next(files.pop(name) for name in list(files) if name.endswith(".json"))
                facts = json.loads(text)
                ((name, data),) = files.items()
                place = f"{shard.name}.tar/{name}"
                yield CaptionedImage(facts["id"], [facts["caption"]], place, data, False)


class ImageFolder:
    """Image files listed in a COCO captions file.

    Args:
        path: Folder of the images.
        captions: COCO captions JSON with ``file_name`` of each image.
        shard_size: Images a shard.

    Raises:
        FileNotFoundError: If folder or file are missing.
        ValueError: If the file is not a COCO captions file, or lists no images.
    """

    def __init__(self, path: Path, captions: str | os.PathLike, shard_size: int) -> None:
        if shard_size < 1:
            raise ValueError(f"shard_size={shard_size}: give at least 1")
        images = read_coco_images(captions)
        if not images:
            raise ValueError(f"no images in {captions}")
        self._path = path
        self._chunks = {
            f"shard-{number:05d}": images[start : start + shard_size]
            for number, start in enumerate(range(0, len(images), shard_size))
        }
        self.settings: dict[str, Any] = {
            "captions": f"sha256 {sha256(Path(captions))[:16]}",
            "shard_size": shard_size,
        }
        self.shards = [
            Shard(name, len(chunk), fingerprint([list(image) for image in chunk]))
            for name, chunk in self._chunks.items()
        ]

    def read(self, shard: Shard) -> Iterator[CaptionedImage]:
        """Read one part of the list, in its order."""
        for image_id, file_name, captions in self._chunks[shard.name]:
            yield CaptionedImage(image_id, captions, file_name, self._path / file_name, True)


def open_source(
    path: str | os.PathLike, captions: str | os.PathLike | None, shard_size: int
) -> Source:
    """Tell generated shards from a folder of image files.

    Args:
        path: The folder.
        captions: COCO captions JSON; needed for image files, and only for them.
        shard_size: Images a shard, for image files.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If ``captions`` is missing, or given in vain.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"no folder of images at {path}")
    generated = (path / "manifest.json").is_file()
    if generated and captions is not None:
        raise ValueError(
            f"{path} holds generated images, which bring their captions: drop --captions"
        )
    if generated:
        return GeneratedImages(path)
    if captions is None:
        raise ValueError(
            f"{path} has no manifest.json of tools/generate.py: if it holds image files, "
            "give their COCO captions JSON with --captions"
        )
    return ImageFolder(path, captions, shard_size)
