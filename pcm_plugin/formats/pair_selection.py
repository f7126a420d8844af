"""Selected pairs of images and captions of a feature store, as ``pcm refine`` writes them.

A folder of format ``pcm-pairs`` holds ``pairs.safetensors``, with the fields of
:class:`PairSelection` and the identity of the store, next to the shards of the computation.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.tensor_file import write_tensors

FORMAT = "pcm-pairs"
"""Format name in the manifest."""

PAIRS_FILE = "pairs.safetensors"
"""Name of the file in the folder."""


class PairSelection(NamedTuple):
    """P pairs, sorted by caption.

    Attributes:
        image: (P,) int64, numbers of the images in the store.
        caption: (P,) int64, numbers of the captions in the store.
        clip_score: (P,) float32, weight of the pair in the loss: 2.5 * cosine of image and caption,
            or with ``pcm refine --score-scale`` another multiple of the cosine in the
            assigning store (SynC's release: 5 times SigLIP 2's). NaN in a store of captions alone.
        score: (P,) float32, by which the pairs were selected.
    """

    image: np.ndarray
    caption: np.ndarray
    clip_score: np.ndarray
    score: np.ndarray

    def to_file(self, path: Path, store: str) -> None:
        """Write a safetensors file; an existing file is replaced atomically.

        Args:
            path: File to write.
            store: ``identity`` of the store that the numbers refer to.
        """
        write_tensors(path, self._asdict(), {"store": store})

    @classmethod
    def from_file(cls, path: str | os.PathLike, store: str) -> "PairSelection":
        """Read a file of :meth:`to_file`.

        Args:
            path: File to read.
            store: ``identity`` of the store that is used.

        Raises:
            MissingFileError: If the file does not exist.
            UserError: If it does not hold pairs, or pairs of another store.
        """
        made_from, pairs = _read(path)
        if made_from != store:
            raise UserError(
                f"{path} was made from another store, or from this one before it was changed: make "
                "it again with `pcm refine`"
            )
        return pairs


def store_of_pairs(path: str | os.PathLike) -> str:
    """Return the ``identity`` of the store that a file of pairs was made from.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If it does not hold pairs.
    """
    return _read(path)[0]


def load_pairs(store: FeatureStore, path: str | os.PathLike | None = None) -> PairSelection:
    """Load selected pairs, or pair each caption of a store with its own image.

    In a store of captions alone, each caption is a pair without an image.

    Args:
        store: Feature store.
        path: File of :meth:`PairSelection.to_file`. Defaults to None: no selection.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If it does not hold pairs of this store, or there are no pairs.
    """
    if path is None:
        captions = np.arange(store.num_captions)
        if store.has_images and not store.is_image[store.caption_to_image(captions)].all():
            raise UserError(
                f"{store.path} has captions without images: set `pairs` to the pairs that were "
                "made for it"
            )
        nothing = np.full(len(captions), np.nan, np.float32)
        scores = store.clip_scores if store.has_images else nothing
        pairs = PairSelection(store.caption_to_image(captions), captions, scores, scores)
    else:
        pairs = PairSelection.from_file(path, store.identity)
    if not len(pairs.caption):
        raise UserError(f"the images of {store.path} have no captions: no pairs")
    return pairs


def _read(path: str | os.PathLike) -> tuple[str, PairSelection]:
    """Return the identity of the store, and the pairs."""
    if not Path(path).is_file():
        raise MissingFileError(f"no pairs at {path}; make them with: pcm refine STORE --out FOLDER")
    try:
        with safe_open(path, "np") as file:
            made_from = (file.metadata() or {})["store"]
            return made_from, PairSelection(*map(file.get_tensor, PairSelection._fields))
    except (SafetensorError, KeyError) as error:
        raise UserError(
            f"{path} must hold pairs, got a file without them ({error}): pass a "
            f"{PAIRS_FILE} of `pcm refine`"
        ) from None
