"""Pairs of several stores, for the store that they are merged to."""

import os
from collections.abc import Sequence

import numpy as np

from pcm_plugin.errors import UserError
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.pair_selection import PairSelection, load_pairs, store_of_pairs


def merge_pairs(
    stores: Sequence[str | os.PathLike], files: Sequence[str | os.PathLike]
) -> PairSelection:
    """Return pairs of several stores with the numbers of the store that they are merged to.

    Args:
        stores: Folders of finished stores, in the order in which they are merged.
        files: Files of pairs, each of one of these stores. All pairs of the other stores are kept.

    Returns:
        The pairs, sorted by caption.

    Raises:
        MissingFileError: If a store or a file is missing.
        UserError: If a file does not hold pairs of one of the stores, or two files hold pairs of
            the same store.
    """
    readers = [FeatureStore(path) for path in stores]
    chosen: dict[str, str | os.PathLike] = {}
    for file in files:
        identity = store_of_pairs(file)
        if identity not in {reader.identity for reader in readers}:
            raise UserError(
                f"{file} must hold pairs of one of {', '.join(map(str, stores))}, but was made "
                "from another store, or from one of these before it was changed: make it again"
            )
        if identity in chosen:
            raise UserError(
                f"{chosen[identity]} and {file} hold pairs of the same store: pass one of them"
            )
        chosen[identity] = file
    parts = []
    images = captions = 0
    for reader in readers:
        if reader.num_captions:
            pairs = load_pairs(reader, chosen.get(reader.identity))
            moved = {"image": pairs.image + images, "caption": pairs.caption + captions}
            parts.append(pairs._replace(**moved))
        images, captions = images + len(reader), captions + reader.num_captions
    return PairSelection(*map(np.concatenate, zip(*parts, strict=True)))
