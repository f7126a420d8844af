"""Image files with captions, for a captioner that has a CLIP backbone of its own."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from pcm_plugin.datasets.coco import read_coco_images
from pcm_plugin.registry import DATASETS
from pcm_plugin.structures import DataSample

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@DATASETS.register_module()
class CaptionImageDataset(Dataset):
    """Images of a COCO captions file, prepared as CLIP takes them.

    An item is one image with all its captions: ``images`` (3, H, W) float32 and
    ``data_samples``, a ``DataSample`` with ``image_id`` (str), ``gt_caption`` (list[str]) and
    ``img_path`` (str). MMEngine's ``default_collate`` makes batches of them.

    Args:
        ann_file: COCO captions JSON.
        image_root: Folder of its ``file_name`` entries.
        preprocess: ``size`` (pixels; the shorter side is resized to it, bicubic, and the centre
            cut out), ``mean`` and ``std`` (of the channels, for values from 0 to 1). Left-out
            entries are those of OpenAI's CLIP: 224 and its mean and std.

    Raises:
        FileNotFoundError: If ``ann_file`` or ``image_root`` is missing.
        ValueError: If ``ann_file`` is not a COCO captions file, or lists no images.
    """

    def __init__(
        self,
        ann_file: str | os.PathLike,
        image_root: str | os.PathLike,
        preprocess: dict[str, Any] | None = None,
    ) -> None:
        if not Path(ann_file).is_file():
            raise FileNotFoundError(f"no COCO captions file at ann_file={str(ann_file)!r}")
        if not Path(image_root).is_dir():
            raise FileNotFoundError(f"no folder of images at image_root={str(image_root)!r}")
        self.images = read_coco_images(ann_file)
        if not self.images:
            raise ValueError(f"{ann_file} lists no images")
        self.image_root = Path(image_root)
        self.transform = clip_transform(**(preprocess or {}))

    @property
    def metainfo(self) -> dict[str, Any]:
        """Facts for the evaluator: none."""
        return {}

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image_id, file_name, captions = self.images[index]
        path = self.image_root / file_name
        sample = DataSample(metainfo={"image_id": image_id, "img_path": str(path)})
        sample.set_field(list(captions), "gt_caption")
        with Image.open(path) as image:
            return {"images": self.transform(image.convert("RGB")), "data_samples": sample}


def clip_transform(
    size: int = 224, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD
) -> transforms.Compose:
    """CLIP's preparation of an image.

    Args:
        size: Side of the square that is cut from the middle, in pixels.
        mean: Mean of each channel, for values from 0 to 1.
        std: Standard deviation of each channel.

    Returns:
        RGB image of PIL to (3, size, size) float32 tensor.
    """
    return transforms.Compose(
        [
            transforms.Resize(size, InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )
