"""SynC's assignment with photos that have no captions as the pool of images.

SynC only needs the features of images, so captions can also be assigned to real images. The pairs
refer to a merged store, which holds the generated images, with all captions, or captions alone, and
then the photos.
"""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from pcm_plugin.errors import UserError
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.image_ids import find_repeated
from pcm_plugin.formats.locks import file_lock
from pcm_plugin.formats.pair_selection import PairSelection
from pcm_plugin.synthesis.pipeline.stores import merge
from pcm_plugin.synthesis.ranks import Rank
from pcm_plugin.synthesis.refine.assignment import Among
from pcm_plugin.synthesis.refine.pairs import refine_pairs
from pcm_plugin.synthesis.refine.settings import POOL_IMAGES, RefineSettings

POOL_STORE = "store"
"""Name of the merged store in the folder of the pairs."""


def refine_with_pool(
    store: str | os.PathLike,
    photos: str | os.PathLike,
    settings: RefineSettings,
    out: str | os.PathLike,
    pool_images: str = "all",
    sentence_feats: str | os.PathLike | None = None,
    chunk: int = 8192,
    device: str | None = None,
    rank: Rank | None = None,
    assign_store: str | os.PathLike | None = None,
    among: Among | None = None,
) -> PairSelection:
    """Assign captions to photos, and write the pairs and the store that they refer to.

    ``OUT/store`` is the merged store, whose files are hard links where possible, and
    ``OUT/pairs.safetensors`` holds its pairs. If the two stores share an image id, all ids get the
    prefix ``0-`` (generated) or ``1-`` (photos).

    Args:
        store: Folder of the finished training store, with the captions. With
            ``pool_images='photos'`` it may have captions alone.
        photos: Folder of a finished store of photos without captions, made with the same settings.
        settings: Settings of the choice, with ``method='sync'``.
        out: Folder to write.
        pool_images: ``'all'`` to assign captions to photos and to the images of ``store``, or
            ``'photos'`` to assign them to photos alone. Defaults to ``'all'``.
        sentence_feats: See :func:`.refine_pairs`.
        chunk: See :func:`.refine_pairs`.
        device: See :func:`.refine_pairs`.
        rank: See :func:`.refine_pairs`.
        assign_store: Folder of a store of another model with the images and captions of
            ``OUT/store``, such as one that ``pcm store merge`` made. Defaults to ``OUT/store``.
        among: Images and captions of ``store`` that are used, see :func:`.refine_pairs`.

    Returns:
        The chosen pairs, with the numbers of ``OUT/store``.

    Raises:
        MissingFileError: If a store is missing.
        UserError: If the photos have captions, the stores were made with different settings, an
            argument is invalid, or :func:`.refine_pairs` raises it.
    """
    if settings.method != "sync":
        raise UserError(
            f"method must be 'sync' with a pool of photos, got {settings.method!r}: a filter keeps "
            "each caption with its own image"
        )
    if pool_images not in POOL_IMAGES:
        raise UserError(f"pool_images must be one of {', '.join(POOL_IMAGES)}, got {pool_images!r}")
    generated, real = FeatureStore(store), FeatureStore(photos)
    real.require_images("refinement with a pool of photos")
    if pool_images == "all":
        generated.require_images("refinement with pool_images='all'")
    if not generated.num_captions:
        raise UserError(f"the images of {store} have no captions: there is nothing to refine")
    if real.num_captions:
        raise UserError(
            f"{photos} must hold images without captions, got {real.num_captions:,} captions: "
            "extract it with --captions none"
        )
    merged = Path(out) / POOL_STORE
    merge_pool(store, photos, merged)
    among = pool_among(generated, real, pool_images, among)
    return refine_pairs(
        merged, settings, out, sentence_feats, chunk, device, rank, assign_store, among
    )


def merge_pool(store: str | os.PathLike, photos: str | os.PathLike, out: Path) -> None:
    """Merge a training store and a store of photos, which may share ids.

    Several ranks may call this; those after the first find a finished store.

    Args:
        store: Folder of the training store, whose images come first.
        photos: Folder of the store of photos.
        out: Folder of the merged store.
    """
    readers = FeatureStore(store), FeatureStore(photos)
    out.parent.mkdir(parents=True, exist_ok=True)
    shared = any(map(partial(share_names, *readers), ("image_id", "file_name")))
    with file_lock(out.parent / ".merge.lock"):
        merge([store, photos], out, prefix_ids=shared, mixed=True)


def pool_among(
    generated: FeatureStore, photos: FeatureStore, pool_images: str, among: Among | None
) -> Among:
    """Return the images and captions of a merged store that are assigned to each other.

    Args:
        generated: The training store, whose images come first and keep their numbers.
        photos: The store of photos.
        pool_images: ``'all'`` or ``'photos'``.
        among: Images and captions of ``generated`` that are used; None for all.
    """
    images, captions = among or Among(np.arange(len(generated)), np.arange(generated.num_captions))
    images = images[: 0 if pool_images == "photos" else None]
    numbers = len(generated) + np.arange(len(photos))
    return Among(np.concatenate([images, numbers]), captions)


def share_names(one: FeatureStore, other: FeatureStore, key: str) -> bool:
    """Return whether a field of the records of all images has a value twice."""

    def values() -> Iterator[str]:
        for store in (one, other):
            records = (store.record(i) for i in range(len(store)))
            yield from (record[key] for record in records if key in record)

    return bool(find_repeated(values))
