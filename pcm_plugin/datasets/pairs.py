"""Pairs of images and captions of a feature store that ``tools/refine.py`` chose."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from pcm_plugin.datasets.durable import write_bytes


class Pairs(NamedTuple):
    """P pairs, in the order of their captions.

    Attributes:
        image: (P,) int64, the images' numbers in the store.
        caption: (P,) int64, the captions' numbers in the store.
        clip_score: (P,) float32, 2.5 * cosine of image and caption.
        score: (P,) float32, by which the pairs were chosen.
    """

    image: np.ndarray
    caption: np.ndarray
    clip_score: np.ndarray
    score: np.ndarray

    def to_file(self, path: Path) -> None:
        """Write a safetensors file; an old one is replaced whole or not at all."""
        write_bytes(path, save({k: np.ascontiguousarray(v) for k, v in self._asdict().items()}))

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> "Pairs":
        """Read what :meth:`to_file` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it holds no pairs.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"no pairs at {path}; make them with: python tools/refine.py STORE --out FOLDER"
            )
        try:
            tensors = load_file(path)
            return cls(*(tensors[key] for key in cls._fields))
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"{path} holds no pairs: {error}") from None
