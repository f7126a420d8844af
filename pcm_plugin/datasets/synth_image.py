"""Dataset of (synthetic) images and captions, for captioners with their own vision encoder."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import Compose
from PIL import Image
from torch.utils.data import Dataset

from pcm_plugin.datasets.synth_caption import SynthCaptionDataset
from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.image_shards import ImageShardReader
from pcm_plugin.formats.images.image_io import read_image
from pcm_plugin.formats.required_file import FileKind, ReadsFiles
from pcm_plugin.registry import DATASETS
from pcm_plugin.structures import DataSample


@DATASETS.register_module()
class SynthImageDataset(Dataset, ReadsFiles):
    """Pairs of a :class:`.SynthCaptionDataset` with pixels instead of features.

    Captions, CLIP scores and the selection of pairs come from a feature store, the pixels from the
    images that the store was extracted from. Items go through a pipeline of MMPretrain's transforms
    without ``LoadImageFromFile``. Its input has

    - ``img``: (H, W, 3) uint8, BGR, with ``img_shape`` and ``ori_shape``, as MMPretrain loads it;
    - ``image_id`` (str), ``gt_caption`` (str; in ``test_mode`` list[str]) and, in training,
      ``clip_score`` (float, 2.5 * cosine).

    Args:
        store: Folder of a feature store of ``pcm extract``.
        img_dir: Folder of images that the store was extracted from: image shards of
            ``pcm generate``, or image files.
        pipeline: Configs of the transforms, such as ``mmpretrain.Resize``, ending with
            ``mmpretrain.PackInputs``.
        test_mode: See SynthCaptionDataset. Defaults to False.
        pairs: See SynthCaptionDataset. Defaults to None.
        min_clip_score: See SynthCaptionDataset. Defaults to None.
        max_pairs: See SynthCaptionDataset. Defaults to None.
        seed: See SynthCaptionDataset. Defaults to 0.

    Raises:
        MissingFileError: If the store or the folder of images does not exist.
        UserError: If the store was not extracted from these images.
    """

    input_files = {
        "store": FileKind.FEATURE_STORE,
        "img_dir": FileKind.IMAGE_FOLDER,
        "pairs": FileKind.PAIR_SELECTION,
    }

    def __init__(
        self,
        store: str | os.PathLike,
        img_dir: str | os.PathLike,
        pipeline: Sequence[dict],
        test_mode: bool = False,
        pairs: str | os.PathLike | None = None,
        min_clip_score: float | None = None,
        max_pairs: float | None = None,
        seed: int = 0,
    ) -> None:
        self.pairs_dataset = SynthCaptionDataset(
            store,
            test_mode,
            pairs=pairs,
            min_clip_score=min_clip_score,
            max_pairs=max_pairs,
            seed=seed,
            data_prefix=img_dir,
        )
        self.img_dir = Path(img_dir)
        if not self.img_dir.is_dir():
            raise MissingFileError(f"no folder of images at {img_dir}")
        is_generated = (self.img_dir / "manifest.json").is_file()
        self._reader = ImageShardReader(img_dir) if is_generated else None
        if self._reader is not None:
            self._reader.check_store(self.pairs_dataset.store)
        self.pipeline = Compose(pipeline)
        self._open(self.pairs_dataset.sample(0))

    @property
    def metainfo(self) -> dict[str, Any]:
        """Meta information for the evaluator, which is empty."""
        return {}

    def __len__(self) -> int:
        """Return the number of pairs, or of images in ``test_mode``."""
        return len(self.pairs_dataset)

    def sample(self, index: int) -> DataSample:
        """Return the data sample of an item without reading pixels."""
        return self.pairs_dataset.sample(index)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.pairs_dataset.sample(index)
        pixels = np.asarray(self._open(sample))[:, :, ::-1]
        item = {
            "img": np.ascontiguousarray(pixels),
            "img_shape": pixels.shape[:2],
            "ori_shape": pixels.shape[:2],
            "image_id": sample.image_id,
            "gt_caption": sample.gt_caption,
        }
        for key in ("img_path", "clip_score"):
            if key in sample:
                item[key] = sample.get(key)
        return self.pipeline(item)

    def iter_captions(self) -> Iterator[str]:
        """See :meth:`.SynthCaptionDataset.iter_captions`."""
        return self.pairs_dataset.iter_captions()

    def _open(self, sample: DataSample) -> Image.Image:
        image_id = sample.image_id
        if self._reader is None:
            if "img_path" not in sample:
                raise UserError(
                    f"{self.pairs_dataset.store.path} has no file name for image {image_id}: pass "
                    "the folder of `pcm generate` that it was extracted from as `img_dir`"
                )
            return read_image(sample.img_path)
        return self._reader.read(image_id)
