"""Pairs of (synthetic) image features and captions from a feature store."""

import os
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from pcm_plugin.datasets.feature_store import FeatureStore
from pcm_plugin.registry import DATASETS
from pcm_plugin.structures import DataSample


@DATASETS.register_module()
class SynthCaptionDataset(Dataset):
    """Features and captions, in the form in which PCM-Net takes them.

    For training an item is one pair of an image and a caption; with ``test_mode`` it is one
    image with all its captions as references. Items have

    - ``patch_feats`` (N, Dv) float32, before ``ln_post`` (not with ``features='caption'``);
    - ``global_feats`` (Dc,) float32, of length 1;
    - ``data_samples``: a ``DataSample`` with ``image_id`` (str), ``gt_caption`` (str; in
      ``test_mode`` list[str]), in training ``clip_score`` (float, 2.5 * cosine), and
      ``img_path`` where the store knows the image's file and ``image_root`` is given.

    MMEngine's ``default_collate`` makes batches of them.

    Args:
        store: Folder of the feature store that ``tools/extract.py`` wrote.
        test_mode: Whether to give images with references. Defaults to False.
        features: ``'image'``, or ``'caption'`` for text-only training: the global feature of a
            training pair is then its caption's text feature, and there are no patches. In
            ``test_mode`` the global feature is the image's either way.
        min_clip_score: Leave out training pairs that score less (2.5 * cosine).
        max_pairs: Take that many items, chosen at random; a smaller choice is part of a larger
            one of the same seed, as data efficiency curves need it.
        seed: Seed of that choice. Defaults to 0.
        image_root: Folder of the image files, for those who draw them.

    Raises:
        FileNotFoundError: If there is no store.
        ValueError: If an argument is out of range or no pair is left.
    """

    def __init__(
        self,
        store: str | os.PathLike,
        test_mode: bool = False,
        features: str = "image",
        min_clip_score: float | None = None,
        max_pairs: int | None = None,
        seed: int = 0,
        image_root: str | os.PathLike | None = None,
    ) -> None:
        if features not in ("image", "caption"):
            raise ValueError(f"features={features!r}: give 'image' or 'caption'")
        if max_pairs is not None and max_pairs < 1:
            raise ValueError(f"max_pairs={max_pairs}: give at least 1, or None for all")
        self.store = FeatureStore(store)
        self.test_mode = test_mode
        self.features = features
        self.image_root = image_root
        if test_mode:
            self._items = np.arange(len(self.store))
        else:
            self._scores = self.store.clip_scores
            self._items = np.arange(self.store.num_captions)
            if not len(self._scores):
                raise ValueError(f"the images of {store} have no captions: there are no pairs")
            if min_clip_score is not None:
                self._items = self._items[self._scores >= min_clip_score]
            if not len(self._items):
                raise ValueError(
                    f"none of the {len(self._scores)} pairs of {store} has "
                    f"min_clip_score={min_clip_score}; the best has "
                    f"{self._scores.max():.3f}"
                )
        if max_pairs is not None and max_pairs < len(self._items):
            chosen = np.random.default_rng(seed).permutation(self._items)[:max_pairs]
            self._items = np.sort(chosen)

    @property
    def metainfo(self) -> dict[str, Any]:
        """Facts for the evaluator: none."""
        return {}

    def __len__(self) -> int:
        """Number of pairs; in ``test_mode``, of images."""
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = int(self._items[index])
        if self.test_mode:
            i = item
        else:
            i = int(np.searchsorted(self.store.caption_offsets, item, "right")) - 1
        image = self.store.image(i)
        sample = DataSample(metainfo={"image_id": image["image_id"]})
        if self.image_root is not None and "file_name" in image:
            path = os.path.join(self.image_root, image["file_name"])
            sample.set_metainfo({"img_path": path})
        if self.test_mode:
            sample.set_field(image["captions"], "gt_caption")
        else:
            caption = image["captions"][item - int(self.store.caption_offsets[i])]
            sample.set_field(caption, "gt_caption")
            sample.set_field(float(self._scores[item]), "clip_score")
        data: dict[str, Any] = {"data_samples": sample}
        if self.features == "image":
            data["patch_feats"] = self.store.patch_feats(i)
        if self.features == "caption" and not self.test_mode:
            data["global_feats"] = self.store.caption_feats(item)
        else:
            data["global_feats"] = self.store.global_feats(i)
        return data
