"""Pairs of images and captions of a feature store that ``tools/refine.py`` chose."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.tensor_file import write_tensors


class PairSelection(NamedTuple):
    """P pairs, in the order of their captions.

    Attributes:
        image: (P,) int64, the images' numbers in the store.
        caption: (P,) int64, the captions' numbers in the store.
        clip_score: (P,) float32, by which the loss weights pairs: 2.5 * cosine of image and
            caption, or with ``tools/refine.py --score-scale`` that many times the cosine in the
            assigning store (SynC's release: 5 times SigLIP 2's).
        score: (P,) float32, by which the pairs were chosen.
    """

    image: np.ndarray
    caption: np.ndarray
    clip_score: np.ndarray
    score: np.ndarray

    def to_file(self, path: Path, store: str) -> None:
        """Write a safetensors file; an old one is replaced whole or not at all.

        Args:
            path: The file.
            store: ``identity`` of the store that the numbers belong to.
        """
        write_tensors(path, self._asdict(), {"store": store})

    @classmethod
    def from_file(cls, path: str | os.PathLike, store: str) -> "PairSelection":
        """Read what :meth:`to_file` wrote.

        Args:
            path: The file.
            store: ``identity`` of the store that is to be read.

        Raises:
            MissingFileError: If there is no such file.
            UserError: If it holds no pairs, or those of another store.
        """
        if not Path(path).is_file():
            raise MissingFileError(
                f"no pairs at {path}; make them with: python tools/refine.py STORE --out FOLDER"
            )
        try:
            with safe_open(path, "np") as file:
                of = (file.metadata() or {})["store"]
                pairs = cls(*(file.get_tensor(key) for key in cls._fields))
        except (SafetensorError, KeyError) as error:
            raise UserError(f"{path} holds no pairs: {error}") from None
        if of != store:
            raise UserError(
                f"{path} was made from another store, or from this one before it was changed: make "
                "it again with tools/refine.py"
            )
        return pairs


def load_pairs(store: FeatureStore, path: str | os.PathLike | None = None) -> PairSelection:
    """The pairs of a file, or each caption of a store with its own image.

    Args:
        store: The store.
        path: File of :meth:`PairSelection.to_file`. Defaults to None.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If it holds no pairs of this store, or the store no captions.
    """
    if path is None:
        captions = np.arange(store.num_captions)
        scores = store.clip_scores
        pairs = PairSelection(store.caption_to_image(captions), captions, scores, scores)
    else:
        pairs = PairSelection.from_file(path, store.identity)
    if not len(pairs.caption):
        raise UserError(f"the images of {store.path} have no captions: no pairs")
    return pairs
