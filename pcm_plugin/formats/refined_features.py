"""Refined image features, one per caption of a store, of ``pcm refine --method contrast``.

A folder of format ``pcm-refined`` holds ``features.safetensors``, with ``global_feats``
(captions, Dc) and the identity of the store, next to the shards of the computation.
"""

import os
import shlex
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.tensor_file import write_tensors

FORMAT = "pcm-refined"
"""Format name in the manifest."""

FEATURES_FILE = "features.safetensors"
"""Name of the file in the folder."""


def save_refined_features(path: Path, feats: Tensor, store: FeatureStore) -> None:
    """Write a safetensors file; an existing file is replaced atomically.

    Args:
        path: File to write.
        feats: (captions, Dc); row j is the image of the store's caption j.
        store: Store that the rows belong to.
    """
    write_tensors(path, {"global_feats": feats}, {"store": store.identity})


def load_refined_features(path: str | os.PathLike, store: FeatureStore) -> Tensor:
    """Memory-map a file of :func:`save_refined_features`.

    Args:
        path: File to read.
        store: Store whose captions are used for training.

    Returns:
        (captions, Dc) in the dtype of the file.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If it does not hold refined features, or those of another store.
    """
    if not Path(path).is_file():
        raise MissingFileError(
            f"no refined features at {path}; make them with: pcm refine "
            f"{shlex.quote(str(store.path))} --method contrast --out FOLDER"
        )
    try:
        with safe_open(path, "pt") as file:
            made_from = (file.metadata() or {})["store"]
            feats = file.get_tensor("global_feats")
    except (SafetensorError, KeyError) as error:
        raise UserError(
            f"{path} must hold refined features, got a file without them ({error}): pass a "
            f"{FEATURES_FILE} of pcm refine --method contrast"
        ) from None
    if made_from != store.identity or feats.shape != (store.num_captions, store.clip_dim):
        raise UserError(
            f"{path} was made from another store than {store.path}, or from this one before it was "
            "changed: make it again with pcm refine --method contrast"
        )
    return feats
