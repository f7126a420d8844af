"""Images from which the features of a store were extracted."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.images.image_io import read_image
from pcm_plugin.synthesis.extract.sources import GeneratedImages


def load_images(
    store: FeatureStore, images: Sequence[int], folder: str | os.PathLike
) -> list[Image.Image]:
    """Load the images from which features were extracted.

    Args:
        store: The feature store. In one that was merged with prefixes, the ids and file names of
            the folder are those without them.
        images: Indices of images in the store.
        folder: Folder that was passed to ``pcm extract``: generated images or image files.

    Returns:
        The images in RGB, in the order of ``images``.

    Raises:
        MissingFileError: If the folder or a file is missing.
        UserError: If the folder does not contain these images.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFileError(f"no folder of images at {folder}")
    records = {i: _own_record(store, i) for i in dict.fromkeys(images)}
    if (folder / "manifest.json").is_file():
        loaded = _load_generated(store, {i: r["image_id"] for i, r in records.items()}, folder)
        return [loaded[i] for i in images]
    unnamed = [r["image_id"] for r in records.values() if "file_name" not in r]
    if unnamed:
        raise UserError(
            f"{store.path} has no file name for image {unnamed[0]}: pass the folder of "
            "`pcm generate` from which it was extracted"
        )
    loaded = {i: read_image(folder / r["file_name"]) for i, r in records.items()}
    return [loaded[i] for i in images]


def _own_record(store: FeatureStore, i: int) -> dict[str, Any]:
    """Return the record of an image in the store that was merged, without a prefix."""
    record = store.record(i)
    if not (store.settings.get("source") or {}).get("prefix_ids"):
        return record
    record["image_id"] = record["image_id"].split("-", 1)[1]
    if "file_name" in record:
        record["file_name"] = record["file_name"].split("/", 1)[1]
    return record


def _load_generated(
    store: FeatureStore, ids: dict[int, str], folder: Path
) -> dict[int, Image.Image]:
    source = GeneratedImages(folder)
    # The digest of a feature shard identifies its archive: equal ids may be different images.
    archives = {shard.digest: shard for shard in source.shards}
    wanted: dict[str, dict[str, list[int]]] = {}
    for i, image_id in ids.items():
        wanted.setdefault(store.digest(i), {}).setdefault(image_id, []).append(i)
    loaded = {}
    for digest, indices in wanted.items():
        for image in source.read(archives[digest]) if digest in archives else ():
            for i in indices.pop(image.image_id, ()):
                loaded[i] = read_image(image.data())
            if not indices:
                break
    absent = ids.keys() - loaded.keys()
    if absent:
        raise UserError(
            f"{folder} does not contain image {ids[min(absent)]} of {store.path}: pass the folder "
            "from which the features were extracted, unchanged"
        )
    return loaded
