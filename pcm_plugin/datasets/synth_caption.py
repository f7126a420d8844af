"""Pairs of (synthetic) image features and captions from a feature store."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from pcm_plugin.datasets.feature_store import FeatureStore
from pcm_plugin.datasets.pairs import Pairs, pairs_of
from pcm_plugin.registry import DATASETS
from pcm_plugin.structures import DataSample


@DATASETS.register_module()
class SynthCaptionDataset(Dataset):
    """Features and captions, in the form in which PCM-Net takes them.

    For training an item is one pair of an image and a caption; with ``test_mode`` it is one
    image with all its captions as references. Items have

    - ``patch_feats`` (N, Dv), before ``ln_post``, in the store's dtype, since they are most of what
      travels to the model, which makes float32 of them (not with ``features='caption'``);
    - ``global_feats`` (Dc,) float32, of length 1;
    - ``data_samples``: a ``DataSample`` with ``image_id`` (str), ``gt_caption`` (str; in
      ``test_mode`` list[str]), in training ``clip_score`` (float, 2.5 * cosine), and
      ``img_path`` where the store knows the image's file and ``image_root`` is given.

    MMEngine's ``default_collate`` makes batches of them.

    Args:
        store: Folder of the feature store that ``tools/extract.py`` wrote.
        test_mode: Whether to give images with references. Defaults to False.
        pairs: File of pairs that ``tools/refine.py`` wrote. Defaults to each caption with the
            image that was made from it.
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
        pairs: str | os.PathLike | None = None,
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
        if pairs is not None and test_mode:
            raise ValueError("pairs are for training: a test has images with all their captions")
        self.store = FeatureStore(store)
        self.test_mode = test_mode
        self.features = features
        self.image_root = image_root
        self._pairs = None if test_mode else self._choose(pairs, min_clip_score)
        count = len(self.store) if self._pairs is None else len(self._pairs.caption)
        self._items = np.arange(count)
        if max_pairs is not None and max_pairs < count:
            self._items = np.sort(np.random.default_rng(seed).permutation(count)[:max_pairs])

    def _choose(self, path: str | os.PathLike | None, min_clip_score: float | None) -> Pairs:
        """The pairs of ``path``, or each caption with its own image; those that score enough."""
        pairs = pairs_of(self.store, path)
        if min_clip_score is None:
            return pairs
        enough = pairs.clip_score >= min_clip_score
        if not enough.any():
            raise ValueError(
                f"none of the {len(enough)} pairs of {self.store.path} has "
                f"min_clip_score={min_clip_score}; the best has {pairs.clip_score.max():.3f}"
            )
        return Pairs(*(values[enough] for values in pairs))

    @property
    def metainfo(self) -> dict[str, Any]:
        """Facts for the evaluator: none."""
        return {}

    def __len__(self) -> int:
        """Number of pairs; in ``test_mode``, of images."""
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Several items at once, as PyTorch's loader asks for a batch; they are read together."""
        chosen = self._items[np.asarray(indices)]
        images = chosen if self._pairs is None else self._pairs.image[chosen]
        if self.features == "image":
            features = {
                "patch_feats": self.store.rows("patch_feats", images, dtype=None),
                "global_feats": self.store.rows("global_feats", images),
            }
        elif self._pairs is None:
            features = {"global_feats": self.store.rows("global_feats", images)}
        else:
            captions = self._pairs.caption[chosen]
            features = {"global_feats": self.store.rows("caption_feats", captions)}
        return [
            {
                "data_samples": self._sample(int(item), int(image)),
                **{key: values[row] for key, values in features.items()},
            }
            for row, (item, image) in enumerate(zip(chosen, images, strict=True))
        ]

    def sample(self, index: int) -> DataSample:
        """The data sample of an item, without reading features."""
        item = int(self._items[index])
        return self._sample(item, item if self._pairs is None else int(self._pairs.image[item]))

    def _sample(self, item: int, i: int) -> DataSample:
        image = self.store.image(i)
        sample = DataSample(metainfo={"image_id": image["image_id"]})
        if self.image_root is not None and "file_name" in image:
            path = os.path.join(self.image_root, image["file_name"])
            sample.set_metainfo({"img_path": path})
        if self._pairs is None:
            sample.set_field(image["captions"], "gt_caption")
            return sample
        j = int(self._pairs.caption[item])
        owner = int(self.store.owners([j])[0])
        texts = image["captions"] if owner == i else self.store.captions(owner)
        sample.set_field(texts[j - int(self.store.caption_offsets[owner])], "gt_caption")
        sample.set_field(float(self._pairs.clip_score[item]), "clip_score")
        return sample
