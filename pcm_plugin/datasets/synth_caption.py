"""Pairs of (synthetic) image features and captions from a feature store."""

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from pcm_plugin.errors import UserError
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.object_labels import load_object_labels
from pcm_plugin.formats.pair_selection import PairSelection, load_pairs
from pcm_plugin.formats.refined_features import load_refined_features
from pcm_plugin.formats.required_file import FileKind, ReadsFiles
from pcm_plugin.registry import DATASETS
from pcm_plugin.structures import DataSample


@DATASETS.register_module()
class SynthCaptionDataset(Dataset, ReadsFiles):
    """Features and captions, in the form in which PCM-Net takes them.

    For training an item is one pair of an image and a caption; with ``test_mode`` it is one
    image with all its captions as references. Items have

    - ``patch_feats`` (N, Dv), before ``ln_post``, in the store's dtype, since they are most of what
      travels to the model, which makes float32 of them (only with ``features='patch'``);
    - ``global_feats`` (Dc,) float32, of length 1;
    - ``data_samples``: a ``DataSample`` with ``image_id`` (str), ``gt_caption`` (str; in
      ``test_mode`` list[str]), in training ``clip_score`` (float, 2.5 * cosine, or as the file
      of ``pairs`` has it), and ``img_path`` where the store knows the image's file and
      ``data_prefix`` is given, and ``object_labels`` (list[str]) where a file of them is given.

    MMEngine's ``default_collate`` makes batches of them.

    Args:
        store: Folder of the feature store that ``tools/extract.py`` wrote.
        test_mode: Whether to give images with references. Defaults to False.
        pairs: File of pairs that ``tools/refine.py`` wrote. Defaults to each caption with the
            image that was made from it.
        features: ``'patch'``; ``'global'``, without patches; or ``'text'`` for text-only
            training: the global feature of a training pair is then its caption's text feature, and
            there are no patches. In ``test_mode`` the global feature is the image's either way.
        refined_features: File of ``tools/refine.py --method contrast``: the global features of the training
            pairs are its rows. With ``features='global'`` alone. Defaults to the store's own.
        object_labels: JSON file of the objects in each image, ``{image_id: [label, ...]}``, such as a
            detector's. Defaults to None.
        min_clip_score: Leave out training pairs that score less (2.5 * cosine).
        max_pairs: Take that many items, or below 1 that share of them (0.1 is 10 %), chosen at
            random; a smaller choice is part of a larger one of the same seed, as data efficiency
            curves need it. Defaults to None: all.
        seed: Seed of that choice. Defaults to 0.
        data_prefix: Folder of the image files, for those who draw them.

    Raises:
        MissingFileError: If there is no store, or a named file is missing.
        UserError: If an argument is out of range, arguments or files do not go together, no pair
            is left, or, with ``test_mode`` or ``object_labels``, images share an id.
    """

    input_files = {
        "store": FileKind.FEATURE_STORE,
        "pairs": FileKind.PAIR_SELECTION,
        "refined_features": FileKind.REFINED_FEATURES,
        "object_labels": FileKind.OBJECT_LABELS,
    }

    def __init__(
        self,
        store: str | os.PathLike,
        test_mode: bool = False,
        pairs: str | os.PathLike | None = None,
        features: str = "patch",
        min_clip_score: float | None = None,
        max_pairs: float | None = None,
        seed: int = 0,
        data_prefix: str | os.PathLike | None = None,
        refined_features: str | os.PathLike | None = None,
        object_labels: str | os.PathLike | None = None,
    ) -> None:
        if features not in ("patch", "global", "text"):
            raise UserError(f"`features` must be 'patch', 'global' or 'text', got {features!r}")
        is_share = isinstance(max_pairs, float)
        is_number = is_share or (isinstance(max_pairs, int) and not isinstance(max_pairs, bool))
        if max_pairs is not None and not (
            is_number and (0 < max_pairs < 1 if is_share else max_pairs >= 1)
        ):
            raise UserError(
                f"max_pairs={max_pairs!r}: give a whole number from 1 on, a share between 0 and 1, "
                "or None for all"
            )
        if pairs is not None and test_mode:
            raise UserError("pairs are for training: a test has images with all their captions")
        if refined_features is not None and (test_mode or features != "global"):
            raise UserError(
                f"refined features with test_mode={test_mode}, features={features!r}: they are "
                "the global features of training pairs, for features='global'"
            )
        self.store = FeatureStore(store)
        if features == "patch" and not self.store.num_patches:
            raise UserError(
                f"{store} has no patch features (tools/extract.py --no-patches made it): extract "
                "them, or use features='global' with a captioner that takes no patches"
            )
        if test_mode or object_labels is not None:
            self.store.check_unique_ids()
        self.test_mode = test_mode
        self.features = features
        self.data_prefix = data_prefix
        self._pairs = None if test_mode else self._choose(pairs, min_clip_score)
        count = len(self.store) if self._pairs is None else len(self._pairs.caption)
        self._items = np.arange(count)
        if max_pairs is not None:
            wanted = max(1, round(max_pairs * count)) if is_share else max_pairs
            if wanted < count:
                order = np.random.default_rng(seed).permutation(count)
                self._items = np.sort(order[: int(wanted)])
        self._refined = None if refined_features is None else self._read_refined(refined_features)
        self._objects = None if object_labels is None else self._read_objects(object_labels)

    def _read_refined(self, path: str | os.PathLike) -> Tensor:
        refined = load_refined_features(path, self.store)
        assert self._pairs is not None
        moved = self._pairs.image != self.store.caption_to_image(self._pairs.caption)
        if moved.any():
            raise UserError(
                f"{path} has the image that was made of each caption, but pairs= give "
                f"{int(moved.sum())} captions another: drop one of the two"
            )
        return refined

    def _read_objects(self, path: str | os.PathLike) -> dict[str, list[str]]:
        objects = load_object_labels(path)
        images = self._items if self._pairs is None else self._pairs.image[self._items]
        for i in np.unique(images).tolist():
            image_id = self.store.record(i)["image_id"]
            if image_id not in objects:
                raise UserError(
                    f"{path} has no entry for image {image_id!r} of {self.store.path}: give each "
                    "image its objects, an empty list where there is nothing"
                )
        return objects

    def _choose(
        self, path: str | os.PathLike | None, min_clip_score: float | None
    ) -> PairSelection:
        """The pairs of ``path``, or each caption with its own image; those that score enough."""
        pairs = load_pairs(self.store, path)
        if min_clip_score is None:
            return pairs
        enough = pairs.clip_score >= min_clip_score
        if not enough.any():
            raise UserError(
                f"none of the {len(enough)} pairs of {self.store.path} has "
                f"min_clip_score={min_clip_score}; the best has {pairs.clip_score.max():.3f}"
            )
        return PairSelection(*(values[enough] for values in pairs))

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
        features = {"global_feats": self._global(chosen, images)}
        if self.features == "patch":
            features["patch_feats"] = self.store.read_rows("patch_feats", images, dtype=None)
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

    def iter_captions(self) -> Iterator[str]:
        """Yield the caption of each training pair, in the order of the store, without features.

        Raises:
            UserError: In ``test_mode``, where items have several captions or none.
        """
        if self._pairs is None:
            raise UserError("iter_captions() needs training pairs, got test_mode=True")
        captions = np.sort(self._pairs.caption[self._items])
        owners = self.store.caption_to_image(captions).tolist()
        rows = zip(captions.tolist(), owners, strict=True)
        for owner, group in itertools.groupby(rows, key=lambda row: row[1]):
            texts, first = self.store.captions(owner), int(self.store.caption_offsets[owner])
            yield from (texts[j - first] for j, _ in group)

    def _global(self, chosen: np.ndarray, images: np.ndarray) -> Tensor:
        if self._pairs is not None and self._refined is not None:
            return F.normalize(self._refined[self._pairs.caption[chosen]].float(), dim=-1)
        if self._pairs is not None and self.features == "text":
            return self.store.read_rows("caption_feats", self._pairs.caption[chosen])
        return self.store.read_rows("global_feats", images)

    def _sample(self, item: int, i: int) -> DataSample:
        image = self.store.record(i)
        sample = DataSample(metainfo={"image_id": image["image_id"]})
        if self.data_prefix is not None and "file_name" in image:
            path = os.path.join(self.data_prefix, image["file_name"])
            sample.set_metainfo({"img_path": path})
        if self._objects is not None:
            sample.set_field(self._objects[image["image_id"]], "object_labels")
        if self._pairs is None:
            sample.set_field(image["captions"], "gt_caption")
            return sample
        j = int(self._pairs.caption[item])
        owner = int(self.store.caption_to_image([j])[0])
        texts = image["captions"] if owner == i else self.store.captions(owner)
        sample.set_field(texts[j - int(self.store.caption_offsets[owner])], "gt_caption")
        sample.set_field(float(self._pairs.clip_score[item]), "clip_score")
        return sample
