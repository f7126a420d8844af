"""Inferencer: caption images in Python."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.infer import BaseInferencer
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from pcm_plugin.apis.build import build_captioner
from pcm_plugin.apis.image_inputs import InputImage, iter_inputs, load_input
from pcm_plugin.apis.model_hash import model_hash
from pcm_plugin.apis.regions import caption_regions, check_region_decoding, check_takes_regions
from pcm_plugin.errors import UserError
from pcm_plugin.formats.images.folder import printable
from pcm_plugin.models.captioners import PCMNet
from pcm_plugin.models.decoding import DecodingConfig
from pcm_plugin.registry import INFERENCERS
from pcm_plugin.structures import DataSample
from pcm_plugin.visualization import SheetEntry, concepts_of_sample, contact_sheet

_MAX_SIZE = (640, 640)


@INFERENCERS.register_module()
class CaptionInferencer(BaseInferencer):
    """Inferencer that captions image files, folders, arrays and PIL images.

    Args:
        model: Config (path, name such as ``'pcm_coco'``, Config or dict) of the checkpoint
            ``weights``; or a captioner file or the name of a model that comes with the package,
            such as ``'pcm-net_toy'``, without ``weights``. Defaults to None.
        weights: Checkpoint of ``model``; or, without ``model``, a file of ``pcm export`` or
            the name of a model. Defaults to None.
        device: Device, e.g. ``'cuda:0'``. Defaults to None: a GPU if available.
        scope: Registry scope of MMEngine. Defaults to ``'pcm_plugin'``.
        show_progress: Whether to show a progress bar. Defaults to True.
        patch_mode: Attention of CLIP's last block for the patches of :meth:`regions`, as of
            :class:`.OpenCLIPBackbone`. Defaults to None, that of the captioner.

    Raises:
        MissingFileError: If a file is missing.
        UserError: If the weights are not a captioner or do not match the config, the config cannot
            be read, or ``patch_mode`` is set for a captioner that reads patches or a CLIP without
            such a mode.

    Example:
        >>> from pcm_plugin.apis import CaptionInferencer
        >>> inferencer = CaptionInferencer("pcm-net_toy")
        >>> inferencer("photos/", num_captions=3)["predictions"][0]["caption"]
        'two blue cars next to a tree'
    """

    preprocess_kwargs = {"skip_invalid"}
    forward_kwargs = {field.name for field in dataclasses.fields(DecodingConfig)}

    model: PCMNet

    def __init__(
        self,
        model: str | os.PathLike | Config | dict | None = None,
        weights: str | os.PathLike | None = None,
        device: str | None = None,
        scope: str | None = "pcm_plugin",
        show_progress: bool = True,
        patch_mode: str | None = None,
    ) -> None:
        # MMEngine's constructor would unpickle the weights and take the config from them.
        self.scope, self.show_progress = scope, show_progress
        self.model = build_captioner(model, weights).to(device or get_device()).eval()
        if self.model.backbone is None:
            raise UserError(
                "the model must have a backbone to caption images: set backbone=dict("
                "type='pcm_plugin.OpenCLIPBackbone', ...)"
            )
        self.backbone = self.model.backbone
        if patch_mode is not None:
            check_takes_regions(self.model)
            self.backbone.set_patch_mode(patch_mode)
        self._words = self.model.neck.concept_words

    def __call__(
        self,
        inputs: Any,
        return_datasamples: bool = False,
        batch_size: int = 32,
        draw: bool = False,
        **kwargs: Any,
    ) -> dict[str, list[Any]]:
        """Caption images.

        Args:
            inputs: A file, a folder (all images in it and its subfolders, sorted by name), an array
                (H, W, 3) or (H, W) of uint8 in RGB order, a PIL image, or an iterable of these,
                such as a list or a generator. Iterables are read lazily.
            return_datasamples: Whether to return data samples. Defaults to False.
            batch_size: Batch size. Defaults to 32.
            draw: Whether to draw each image with its caption, concepts and mixed patches. Defaults
                to False.
            kwargs: Decoding settings, such as ``beam_size``: the fields of
                :class:`.DecodingConfig`, which default to the settings
                of the model; and ``skip_invalid``: return a dict with ``image`` and ``error`` for
                an image that cannot be read, instead of raising. Defaults to False.

        Returns:
            A dict with two lists. ``predictions`` has one entry per image, in order, which is a
            dict of :meth:`to_dict` or a data sample of :meth:`.Captioner.predict` with
            ``img_path``. ``visualization`` has one PIL image per captioned image if ``draw``, and
            is empty otherwise.

        Raises:
            MissingFileError: If a file is missing, or a folder contains no images.
            TypeError: If an input has another type.
            UserError: If an image cannot be read, or an argument is unknown or out of range.
        """
        predictions: list[Any] = []
        drawings: list[Image.Image] = []
        for image, result in self.stream(inputs, batch_size, **kwargs):
            predictions.append(result)
            if draw and image is not None:
                drawings += self.visualize([image], [result])
        return self.postprocess(predictions, drawings, return_datasamples)

    def stream(
        self, inputs: Any, batch_size: int = 32, **kwargs: Any
    ) -> Iterator[tuple[Image.Image | None, Any]]:
        """Caption images batch by batch. Arguments and errors are those of :meth:`__call__`.

        Yields:
            The image and its data sample; or None and a dict with ``image`` and ``error``.
        """
        if batch_size < 1:
            raise UserError(f"`batch_size` must be at least 1, got {batch_size}")
        preprocess_args, changes, _, _ = self._dispatch_kwargs(**kwargs)
        decoding = self.model.decoding.updated(changes)
        self.model.check_decoding(decoding)
        items, total = iter_inputs(inputs)
        with tqdm(total=total, desc="images", disable=not self.show_progress) as bar:
            for batch in self.preprocess(items, batch_size, **preprocess_args):
                images = [entry.image for entry in batch if isinstance(entry, InputImage)]
                samples = iter(self.forward(images, decoding=decoding))
                for entry in batch:
                    if isinstance(entry, dict):
                        yield None, entry
                        continue
                    sample = next(samples)
                    sample.set_metainfo({"img_path": entry.name})
                    yield entry.image, sample
                bar.update(len(batch))

    def regions(
        self,
        image: Any,
        boxes: Sequence[Sequence[float]] = (),
        points: Sequence[Sequence[float]] = (),
        gaussian_variance: float | None = None,
        skip_invalid: bool = False,
        batch_size: int = 32,
        **kwargs: Any,
    ) -> list[dict[str, Any]]:
        """Caption regions of an image; see :mod:`pcm_plugin.models.functional.regions`.

        Args:
            image: A file, an array or a PIL image, as of :meth:`__call__`.
            boxes: Boxes (x0, y0, x1, y1) in pixels of the image; x1 and y1 are exclusive.
            points: Points (x, y) in pixels of the image.
            gaussian_variance: Weight the patches of a box by a Gaussian, see
                :func:`.box_weights`. Defaults to None, their mean.
            skip_invalid: Whether to return a dict with ``box`` or ``point`` and ``error`` for an
                invalid region, instead of raising. Defaults to False.
            batch_size: Number of regions that are decoded together. Defaults to 32.
            kwargs: Decoding settings, see :meth:`__call__`.

        Returns:
            The dict of :meth:`to_dict` for each box, then for each point, with ``box`` or
            ``point``, the list of its numbers.

        Raises:
            MissingFileError: If the file is missing.
            UserError: If the captioner reads the patches of whole images, the image cannot be
                read, a region is invalid, a setting is out of range, or there is a ``rerank_clip``.
        """
        check_takes_regions(self.model)
        decoding = self.model.decoding.updated(kwargs)
        check_region_decoding(self.model, decoding)
        entry = load_input(0, image)
        assert isinstance(entry, InputImage)
        found = caption_regions(
            self.model, entry.image, boxes, points, gaussian_variance, decoding, batch_size
        )
        # Numbers of NumPy are not JSON.
        places = [{"box": [np.asarray(x).item() for x in box]} for box in boxes]
        places += [{"point": [np.asarray(x).item() for x in point]} for point in points]
        results = []
        for place, sample in zip(places, found, strict=True):
            if isinstance(sample, UserError):
                if not skip_invalid:
                    raise sample
                results.append({"image": entry.name, **place, "error": str(sample)})
            else:
                sample.set_metainfo({"img_path": entry.name})
                results.append(self.to_dict(sample) | place)
        return results

    def preprocess(
        self, inputs: Any, batch_size: int = 32, skip_invalid: bool = False
    ) -> Iterator[list[Any]]:
        """Read images batch by batch.

        Args:
            inputs: See :meth:`__call__`.
            batch_size: Batch size. Defaults to 32.
            skip_invalid: See :meth:`__call__`. Defaults to False.

        Yields:
            For each image of a batch an InputImage, or a dict with ``image`` and ``error``.
        """
        items = enumerate(iter_inputs(inputs)[0])
        while batch := list(islice(items, batch_size)):
            yield [load_input(i, item, skip_invalid) for i, item in batch]

    @torch.inference_mode()
    def forward(self, inputs: Sequence[Image.Image], **kwargs: Any) -> list[DataSample]:
        """Caption a batch of images.

        Args:
            inputs: RGB images.
            kwargs: ``decoding``, a DecodingConfig, which defaults to the settings of the model.
        """
        if not inputs:
            return []
        device = next(self.model.parameters()).device
        pixels = torch.stack([self._init_pipeline()(image) for image in inputs])
        return self.model.predict(
            pixels.to(device), decoding=kwargs.get("decoding"), pil_images=inputs
        )

    def to_dict(self, sample: DataSample) -> dict[str, Any]:
        """Convert a data sample to JSON values.

        Args:
            sample: Data sample of :meth:`stream`.

        Returns:
            A dict with the keys

            - ``image`` (str): file name, or index of the input;
            - ``caption`` (str) and ``log_prob`` (float): best caption and its log-probability;
            - ``captions``: dicts with ``caption``, ``log_prob`` and, with a length penalty,
              ``score``, with re-ranking ``similarity``, and with ``rerank='ranks'``
              ``mean_log_prob`` and any ``second_similarity``, best first. Missing if there is one
              caption without re-ranking;
            - ``concepts``: dicts with ``concept`` and ``probability``, most likely first;
            - ``patches``: dicts of the mixed patches with ``patch`` (index in the grid, in
              row-major order) and ``concept``.
        """
        result: dict[str, Any] = {
            "image": sample.get("img_path"),
            "caption": sample.pred_caption,
            "log_prob": sample.pred_score,
        }
        if "pred_captions" in sample:
            result["captions"] = [
                {key: value for key, value in hypothesis._asdict().items() if value is not None}
                for hypothesis in sample.pred_captions
            ]
        concepts, patches = concepts_of_sample(sample, self._words)
        result["concepts"] = [{"concept": c, "probability": p} for c, p in concepts]
        result["patches"] = [{"patch": i, "concept": c} for i, c in patches]
        return result

    def to_sheet_entry(
        self, image: Image.Image, sample: DataSample, references: Sequence[str] = ()
    ) -> SheetEntry:
        """Return the entry of an image for a contact sheet, with the image scaled down."""
        concepts, patches = concepts_of_sample(sample, self._words)
        title = printable(Path(str(sample.get("img_path", ""))).name)
        image = image.copy()
        image.thumbnail(_MAX_SIZE)
        return SheetEntry(image, sample.pred_caption, references, concepts, patches, title)

    def identity(self) -> str:
        """Return a short hash of weights, vocabulary, concepts and CLIP."""
        return model_hash(self.model)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patches."""
        return self.backbone.grid

    def visualize(
        self, inputs: list[Image.Image], preds: list[DataSample], show: bool = False, **_: Any
    ) -> list[Image.Image]:
        """Draw images with their captions, concepts and mixed patches.

        Args:
            inputs: RGB images.
            preds: Their data samples.
            show: Whether to open the drawings in the image viewer. Defaults to False.
        """
        entries = [self.to_sheet_entry(*pair) for pair in zip(inputs, preds, strict=True)]
        drawings = [contact_sheet([entry], self.grid, columns=1) for entry in entries]
        if show:
            for drawing in drawings:
                drawing.show()
        return drawings

    def postprocess(
        self, preds: list[Any], visualization: list[Any], return_datasample: bool = False, **_: Any
    ) -> dict[str, list[Any]]:
        """Return the result of :meth:`__call__` for data samples, errors and drawings."""
        if not return_datasample:
            preds = [p if isinstance(p, dict) else self.to_dict(p) for p in preds]
        return {"predictions": preds, "visualization": visualization}

    def _init_pipeline(self, cfg: Any = None) -> Callable[[Image.Image], Tensor]:
        return self.backbone.preprocess
