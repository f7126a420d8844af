"""Images from which the features of a store were extracted."""

import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.images.image_io import read_image
from pcm_plugin.synthesis.extract.sources import GeneratedImages


def load_images(
    store: FeatureStore,
    images: Sequence[int],
    folder: str | os.PathLike,
    part: int | None = None,
) -> list[Image.Image]:
    """Load the images from which features were extracted.

    Args:
        store: The feature store.
        images: Indices of images in the store.
        folder: Folder that was passed to ``pcm extract``: generated images or image files. For
            image files of a store that was merged with prefixes, either ``part`` is passed, or the
            folder has a folder ``0``, ``1``, ... for each merged store.
        part: Number of the merged store to which the folder belongs, and all ``images``, in the
            first merge if there were several. Defaults to None.

    Returns:
        The images in RGB, in the order of ``images``.

    Raises:
        MissingFileError: If the folder or a file is missing.
        UserError: If the folder does not contain these images.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFileError(f"no folder of images at {folder}")
    records = {i: store.record(i) for i in dict.fromkeys(images)}
    prefixes = store.num_prefixes.tolist()
    if (folder / "manifest.json").is_file():
        # The digest of the archive shows to which store an image belongs.
        ids = {i: r["image_id"].split("-", prefixes[i])[-1] for i, r in records.items()}
        loaded = _load_generated(store, ids, folder)
        return [loaded[i] for i in images]
    unnamed = [r["image_id"] for r in records.values() if "file_name" not in r]
    if unnamed:
        raise UserError(
            f"{store.path} has no file name for image {unnamed[0]}: pass the folder of "
            "`pcm generate` from which it was extracted"
        )
    names = {i: record["file_name"] for i, record in records.items()}
    if any(prefixes) and part is not None:
        for i, name in names.items():
            *numbers, names[i] = name.split("/", prefixes[i])
            if numbers[-1:] != [str(part)]:  # the last number is that of the first merge
                raise UserError(f"{name} of {store.path} is not of the merged store {part}")
    loaded = {i: read_image(folder / name) for i, name in names.items()}
    return [loaded[i] for i in images]


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
