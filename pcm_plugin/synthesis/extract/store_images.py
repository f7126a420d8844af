"""The pictures behind the features of a store."""

import io
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.images.image_io import read_image
from pcm_plugin.synthesis.extract.sources import GeneratedImages


def load_images(
    store: FeatureStore, images: Sequence[int], folder: str | os.PathLike
) -> list[Image.Image]:
    """Read the pictures that features were made from.

    Args:
        store: The features.
        images: Numbers of images in the store.
        folder: What ``tools/extract.py`` read: generated shards, or the folder of the image files.

    Returns:
        A picture for each, RGB.

    Raises:
        MissingFileError: If the folder or a file is not there.
        UserError: If the folder does not hold these images.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFileError(f"no folder of images at {folder}")
    records = {i: store.record(i) for i in dict.fromkeys(images)}
    if not (folder / "manifest.json").is_file():
        unnamed = [r["image_id"] for r in records.values() if "file_name" not in r]
        if unnamed:
            raise UserError(
                f"{store.path} does not know the file of image {unnamed[0]}: give the folder of "
                "tools/generate.py that it was made from"
            )
        found = {i: read_image(folder / r["file_name"]) for i, r in records.items()}
    else:
        found = _generated(store, {i: r["image_id"] for i, r in records.items()}, folder)
    return [found[i] for i in images]


def _generated(store: FeatureStore, ids: dict[int, str], folder: Path) -> dict[int, Image.Image]:
    source = GeneratedImages(folder)
    # A shard of features names the archive that it was made of: equal ids do not mean equal images.
    archives = {shard.digest: shard for shard in source.shards}
    wanted: dict[str, dict[str, list[int]]] = {}
    for i, image_id in ids.items():
        wanted.setdefault(store.digest(i), {}).setdefault(image_id, []).append(i)
    found = {}
    for digest, own in wanted.items():
        for image in source.read(archives[digest]) if digest in archives else ():
            for i in own.pop(image.image_id, ()):
                found[i] = read_image(io.BytesIO(image.data()))
            if not own:
                break
    absent = ids.keys() - found.keys()
    if absent:
        raise UserError(
            f"{folder} does not hold image {ids[min(absent)]} of {store.path}: pass the folder "
            "that the features were extracted from, unchanged"
        )
    return found
