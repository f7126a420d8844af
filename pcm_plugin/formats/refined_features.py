"""Refined image features, one a caption of a store: what ``--method contrast`` writes."""

import os
import shlex
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.tensor_file import write_tensors


def save_refined_features(path: Path, feats: Tensor, store: FeatureStore) -> None:
    """Write a safetensors file; an old one is replaced whole or not at all.

    Args:
        path: The file.
        feats: (captions, Dc), row j the image of the store's caption j.
        store: The store that the rows belong to.
    """
    write_tensors(path, {"global_feats": feats}, {"store": store.identity})


def load_refined_features(path: str | os.PathLike, store: FeatureStore) -> Tensor:
    """Map what :func:`save_refined_features` wrote.

    Args:
        path: The file.
        store: The store whose captions are trained on.

    Returns:
        (captions, Dc) in the file's dtype.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If it holds no such features, or those of another store.
    """
    if not Path(path).is_file():
        raise MissingFileError(
            f"no refined features at {path}; make them with: python tools/refine.py "
            f"{shlex.quote(str(store.path))} --method contrast --out FOLDER"
        )
    try:
        with safe_open(path, "pt") as file:
            of = (file.metadata() or {})["store"]
            feats = file.get_tensor("global_feats")
    except (SafetensorError, KeyError) as error:
        raise UserError(f"{path} holds no refined features: {error}") from None
    if of != store.identity or feats.shape != (store.num_captions, store.clip_dim):
        raise UserError(
            f"{path} was made from another store than {store.path}, or from this one before it was "
            "changed: make it again with tools/refine.py --method contrast"
        )
    return feats
