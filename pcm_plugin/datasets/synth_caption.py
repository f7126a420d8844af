"""Dataset of (synthetic) image features and captions of a feature store."""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from pcm_plugin.errors import UserError
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.image_ids import name_some
from pcm_plugin.formats.image_references import load_references
from pcm_plugin.formats.object_labels import load_object_labels
from pcm_plugin.formats.pair_selection import PairSelection, load_pairs
from pcm_plugin.formats.refined_features import load_refined_features
from pcm_plugin.formats.required_file import FileKind, ReadsFiles
from pcm_plugin.registry import DATASETS
from pcm_plugin.structures import DataSample


@DATASETS.register_module()
class SynthCaptionDataset(Dataset, ReadsFiles):
    """Image features with captions of a feature store.

    In training, an item is one pair of an image and a caption. In ``test_mode``, it is one image
    with all its captions as references. Items have

    - ``patch_feats`` (N, Dv), before ``ln_post``, in the dtype of the store, which keeps the
      transfer to the model small (only with ``features='patch'``);
    - ``global_feats`` (Dc,) float32, L2-normalized;
    - ``data_samples``: a ``DataSample`` with ``image_id`` (str); ``gt_caption`` (str; in
      ``test_mode`` list[str]); in training ``clip_score`` (float, 2.5 * cosine, or the value in
      the file of ``pairs``), unless the store has captions alone; ``img_path`` (str) if the store
      has the file name and ``data_prefix`` is set; ``object_labels`` (list[str]) if a file of them
      is set.

    MMEngine's ``default_collate`` makes batches of them.

    Args:
        store: Folder of a feature store of ``pcm extract``, or of captions alone as ``pcm
            make-dataset`` writes it with a recipe that generates no images. The latter needs
            ``features='text'``.
        test_mode: Whether items are images with references. Defaults to False.
        pairs: File of ``pcm refine`` with the pairs for training. Defaults to None: each
            caption with the image that was generated from it.
        features: ``'patch'``: patch and global features; ``'global'``: global features only;
            ``'text'``: no patch features, and the CLIP text feature of the caption in place of the
            image's global feature, for text-only training. In ``test_mode`` the global feature is
            always the image's. Defaults to ``'patch'``.
        min_clip_score: Minimum CLIP score (2.5 * cosine) of training pairs. Defaults to None.
        max_pairs: Number of items (int), or share of the items (float between 0 and 1), drawn at
            random. With the same seed a smaller subset is part of a larger one. Defaults to None:
            all items.
        seed: Seed of this random choice. Defaults to 0.
        data_prefix: Folder of the image files, for visualization. Defaults to None.
        refined_features: File of ``pcm refine --method contrast``, whose rows replace the
            global features of training pairs. Requires ``features='global'``. Defaults to None.
        object_labels: JSON file with the labels of the objects in each image,
            ``{image_id: [label, ...]}``, for example from a detector. Defaults to None.
        references: JSONL file with lines ``{"image_id": str, "captions": [str, ...]}``. Items are
            only these images of the store, with these captions as references. Requires
            ``test_mode=True``. Defaults to None: all images with the captions of the store.

    Attributes:
        store: The store.
        references: The references by image id, if a file of them is set; otherwise None.

    Raises:
        MissingFileError: If the store or another file does not exist.
        UserError: If an argument is out of range, arguments or files do not match, no pair is
            left, or, in ``test_mode`` or with ``object_labels``, images share an id.
    """

    input_files = {
        "store": FileKind.FEATURE_STORE,
        "pairs": FileKind.PAIR_SELECTION,
        "refined_features": FileKind.REFINED_FEATURES,
        "object_labels": FileKind.OBJECT_LABELS,
        "references": FileKind.REFERENCES,
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
        references: str | os.PathLike | None = None,
    ) -> None:
        if features not in ("patch", "global", "text"):
            raise UserError(f"`features` must be 'patch', 'global' or 'text', got {features!r}")
        is_share = isinstance(max_pairs, float)
        is_number = is_share or (isinstance(max_pairs, int) and not isinstance(max_pairs, bool))
        if max_pairs is not None and not (
            is_number and (0 < max_pairs < 1 if is_share else max_pairs >= 1)
        ):
            raise UserError(
                "`max_pairs` must be an int of at least 1, a float between 0 and 1, or None, got "
                f"{max_pairs!r}"
            )
        if pairs is not None and test_mode:
            raise UserError(
                f"`pairs` must be None with test_mode=True, got {str(pairs)!r}: testing uses each "
                "image with all its captions"
            )
        if references is not None and not test_mode:
            raise UserError(
                f"`references` requires test_mode=True, got {str(references)!r}: training uses the "
                "captions of the store"
            )
        if refined_features is not None and (test_mode or features != "global"):
            raise UserError(
                "`refined_features` requires test_mode=False and features='global', got "
                f"test_mode={test_mode} and features={features!r}"
            )
        self.store = FeatureStore(store)
        for setting, reads_images in (
            (f"{test_mode=}", test_mode),
            (f"{features=}", features != "text"),
            (f"{min_clip_score=}", min_clip_score is not None),
        ):
            if reads_images:
                self.store.require_images(setting)
        if features == "patch" and not self.store.num_patches:
            raise UserError(
                f"{store} has no patch features (it was made with pcm extract --no-patches): "
                "extract them, or use features='global' and a captioner without patch features"
            )
        if test_mode or object_labels is not None:
            self.store.check_unique_ids()
        self.test_mode = test_mode
        self.features = features
        self.data_prefix = data_prefix
        self._pairs = None if test_mode else self._select_pairs(pairs, min_clip_score)
        count = len(self.store) if self._pairs is None else len(self._pairs.caption)
        self._items = np.arange(count)
        self.references = None if references is None else load_references(references)
        if self.references is not None:
            self._items = self._find_images(self.references, references)
            count = len(self._items)
        if max_pairs is not None:
            size = max(1, round(max_pairs * count)) if is_share else max_pairs
            if size < count:
                order = np.random.default_rng(seed).permutation(count)
                self._items = self._items[np.sort(order[: int(size)])]
        self._refined_features = (
            None if refined_features is None else self._load_refined(refined_features)
        )
        self._object_labels = None if object_labels is None else self._load_labels(object_labels)

    def _find_images(self, image_ids: Iterable[str], path: Any) -> np.ndarray:
        """Return the numbers of images in the store, in ascending order."""
        numbers = {image_id: i for i, image_id in enumerate(self.store.image_ids)}
        missing = [image_id for image_id in image_ids if image_id not in numbers]
        if missing:
            raise UserError(
                f"{path} has references of images that are not in {self.store.path} "
                f"({name_some(missing)}): make it again with pcm make-dataset"
            )
        return np.sort([numbers[image_id] for image_id in image_ids])

    def _load_refined(self, path: str | os.PathLike) -> Tensor:
        refined = load_refined_features(path, self.store)
        assert self._pairs is not None
        moved = self._pairs.image != self.store.caption_to_image(self._pairs.caption)
        if moved.any():
            raise UserError(
                f"{path} holds the features of the image generated from each caption, but `pairs` "
                f"assigns another image to {int(moved.sum())} captions: set one of the two to None"
            )
        return refined

    def _load_labels(self, path: str | os.PathLike) -> dict[str, list[str]]:
        labels = load_object_labels(path)
        images = self._items if self._pairs is None else self._pairs.image[self._items]
        for i in np.unique(images).tolist():
            image_id = self.store.record(i)["image_id"]
            if image_id not in labels:
                raise UserError(
                    f"{path} has no entry for image {image_id!r} of {self.store.path}: list the "
                    "labels of each image, an empty list if there are none"
                )
        return labels

    def _select_pairs(
        self, path: str | os.PathLike | None, min_clip_score: float | None
    ) -> PairSelection:
        """Load the pairs, and select those whose CLIP score is high enough."""
        pairs = load_pairs(self.store, path)
        if min_clip_score is None:
            return pairs
        selected = pairs.clip_score >= min_clip_score
        if not selected.any():
            raise UserError(
                f"`min_clip_score` must be at most {pairs.clip_score.max():.3f}, the best of the "
                f"{len(selected)} pairs of {self.store.path}, got {min_clip_score}"
            )
        return PairSelection(*(values[selected] for values in pairs))

    @property
    def metainfo(self) -> dict[str, Any]:
        """Meta information for the evaluator, which is empty."""
        return {}

    def __len__(self) -> int:
        """Return the number of pairs, or of images in ``test_mode``."""
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Return several items, whose features are read together; PyTorch's loader uses this."""
        numbers = self._items[np.asarray(indices)]
        images = numbers if self._pairs is None else self._pairs.image[numbers]
        features = {"global_feats": self._global(numbers, images)}
        if self.features == "patch":
            features["patch_feats"] = self.store.read_rows("patch_feats", images, dtype=None)
        return [
            {
                "data_samples": self._sample(int(item), int(image)),
                **{key: values[row] for key, values in features.items()},
            }
            for row, (item, image) in enumerate(zip(numbers, images, strict=True))
        ]

    def sample(self, index: int) -> DataSample:
        """Return the data sample of an item without reading features."""
        item = int(self._items[index])
        return self._sample(item, item if self._pairs is None else int(self._pairs.image[item]))

    def iter_captions(self) -> Iterator[str]:
        """Yield the caption of each training pair in the order of the store.

        No features are read.

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

    def image_keys(self) -> set[tuple[str, int]]:
        """Return the key of each image that items show, see :meth:`.FeatureStore.content_key`."""
        images = self._items if self._pairs is None else self._pairs.image[self._items]
        return {self.store.content_key(i) for i in np.unique(images).tolist()}

    def _global(self, numbers: np.ndarray, images: np.ndarray) -> Tensor:
        if self._pairs is not None and self._refined_features is not None:
            return F.normalize(self._refined_features[self._pairs.caption[numbers]].float(), dim=-1)
        if self._pairs is not None and self.features == "text":
            return self.store.read_rows("caption_feats", self._pairs.caption[numbers])
        return self.store.read_rows("global_feats", images)

    def _sample(self, item: int, i: int) -> DataSample:
        image = self.store.record(i)
        sample = DataSample(metainfo={"image_id": image["image_id"]})
        if self.data_prefix is not None and "file_name" in image:
            path = os.path.join(self.data_prefix, image["file_name"])
            sample.set_metainfo({"img_path": path})
        if self._object_labels is not None:
            sample.set_field(self._object_labels[image["image_id"]], "object_labels")
        if self._pairs is None:
            references = self.references or {}
            texts = references.get(image["image_id"], image["captions"])
            sample.set_field(texts, "gt_caption")
            return sample
        j = int(self._pairs.caption[item])
        owner = int(self.store.caption_to_image([j])[0])
        texts = image["captions"] if owner == i else self.store.captions(owner)
        sample.set_field(texts[j - int(self.store.caption_offsets[owner])], "gt_caption")
        if self.store.has_images:
            sample.set_field(float(self._pairs.clip_score[item]), "clip_score")
        return sample
