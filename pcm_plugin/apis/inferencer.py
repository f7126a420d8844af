"""Captions for one's own images."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.infer import BaseInferencer
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from pcm_plugin.apis.image_inputs import InputImage, iter_inputs, load_input
from pcm_plugin.apis.model_hash import model_hash
from pcm_plugin.apis.zoo import find_weights
from pcm_plugin.engine.checkpoints import load_weights
from pcm_plugin.engine.inputs import drop_clip_head
from pcm_plugin.errors import UserError
from pcm_plugin.formats.images.folder import printable
from pcm_plugin.models.captioner_file import is_captioner, load_captioner
from pcm_plugin.models.captioners import PCMNet
from pcm_plugin.models.captioners.base import assert_is_captioner
from pcm_plugin.models.decoding import DecodingConfig
from pcm_plugin.registry import MODELS
from pcm_plugin.structures import DataSample
from pcm_plugin.visualization import SheetEntry, concepts_of_sample, contact_sheet

_SHOWN = (640, 640)


class CaptionInferencer(BaseInferencer):
    """Captions images: files, folders, arrays, PIL images, or any iterable of them.

    Args:
        model: A config (path, Config or dict) for ``weights`` of a training; or the name of a
            model that comes with the package, such as ``'pcm-net_toy'``. Defaults to None:
            ``weights`` know their config.
        weights: A file of ``tools/export.py`` or a model's name; or a checkpoint of ``model``.
            Defaults to None, which is enough for a name.
        device: Where to run, e.g. ``'cuda:0'``. Defaults to None: a GPU if there is one.
        scope: MMEngine's; not needed. Defaults to ``'pcm_plugin'``.
        show_progress: Whether to show a progress bar. Defaults to True.

    Raises:
        MissingFileError: If a file is missing.
        UserError: If the weights are no captioner, or do not fit the config.

    Example:
        >>> from pcm_plugin.apis import CaptionInferencer
        >>> caption = CaptionInferencer("pcm-net_toy")
        >>> caption("photos/", num_captions=3)["predictions"][0]["caption"]
        'two blue cars beside a tree'
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
    ) -> None:
        # MMEngine's own would read weights by pickle, and configs from inside of them.
        self.scope, self.show_progress = scope, show_progress
        self.model = _build(model, weights).to(device or get_device()).eval()
        if self.model.backbone is None:
            raise UserError("the model has no backbone: it takes features, not images")
        self.backbone = self.model.backbone
        self._words: list[str] = getattr(self.model.neck, "concept_words", [])

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
            inputs: A file, a folder (all images below it, by name), an array (H, W, 3) or (H, W) of
                uint8 in RGB order, a PIL image, or a list, tuple, generator or other iterable of
                these. Iterables are read as they are needed.
            return_datasamples: Whether predictions are data samples. Defaults to False.
            batch_size: Images at a time. Defaults to 32.
            draw: Whether to draw each image with its caption, concepts and mixed patches. Defaults
                to False.
            kwargs: ``beam_size``, ``max_len``, ``min_len``, ``num_captions``, ``rerank_weight``,
                ``length_penalty``: see PCMNet; ``skip_invalid``: whether an image that cannot be
                read gets a dict of ``image`` and ``error`` instead of ending the call, defaults to
                False.

        Returns:
            ``predictions``, one an image, in order: the dicts of :meth:`to_dict`, or data samples
            with the fields of :meth:`PCMNet.predict` and ``img_path``; and ``visualization``: a PIL
            image for each that was captioned if ``draw``, else nothing.

        Raises:
            MissingFileError: If a file is missing, or a folder holds no images.
            TypeError: If an input is none of these.
            UserError: If an image cannot be read, or an argument is unknown or out of range.
        """
        predictions: list[Any] = []
        pictures: list[Image.Image] = []
        for image, found in self.stream(inputs, batch_size, **kwargs):
            predictions.append(found)
            if draw and image is not None:
                pictures += self.visualize([image], [found])
        return self.postprocess(predictions, pictures, return_datasamples)

    def stream(
        self, inputs: Any, batch_size: int = 32, **kwargs: Any
    ) -> Iterator[tuple[Image.Image | None, Any]]:
        """Caption images one batch after the other; arguments and errors as :meth:`__call__`.

        Yields:
            An image and its data sample; or None and a dict of ``image`` and ``error``.
        """
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size}: give at least 1")
        reading, changes, _, _ = self._dispatch_kwargs(**kwargs)
        decoding = self.model.decoding.updated(changes)
        items, total = iter_inputs(inputs)
        with tqdm(total=total, desc="images", disable=not self.show_progress) as bar:
            for opened in self.preprocess(items, batch_size, **reading):
                images = [entry.image for entry in opened if isinstance(entry, InputImage)]
                samples = iter(self.forward(images, decoding=decoding))
                for entry in opened:
                    if isinstance(entry, dict):
                        yield None, entry
                        continue
                    sample = next(samples)
                    sample.set_metainfo({"img_path": entry.name})
                    yield entry.image, sample
                bar.update(len(opened))

    def preprocess(
        self, inputs: Any, batch_size: int = 32, skip_invalid: bool = False
    ) -> Iterator[list[Any]]:
        """Open images, a batch at a time.

        Args:
            inputs: See :meth:`__call__`.
            batch_size: Images at a time. Defaults to 32.
            skip_invalid: See :meth:`__call__`. Defaults to False.

        Yields:
            For each image of a batch a pair of name and RGB image, or a dict of ``image`` and
            ``error``.
        """
        items = enumerate(iter_inputs(inputs)[0])
        while batch := list(islice(items, batch_size)):
            yield [load_input(i, item, skip_invalid) for i, item in batch]

    @torch.inference_mode()
    def forward(self, inputs: Sequence[Image.Image], **kwargs: Any) -> list[DataSample]:
        """Caption a batch.

        Args:
            inputs: Images, RGB.
            kwargs: ``decoding``, a DecodingConfig. Defaults to the settings of the model.
        """
        if not inputs:
            return []
        device = next(self.model.parameters()).device
        pixels = torch.stack([self._init_pipeline()(image) for image in inputs])
        return self.model.predict(pixels.to(device), decoding=kwargs.get("decoding"))

    def to_dict(self, sample: DataSample) -> dict[str, Any]:
        """A data sample as plain values.

        Args:
            sample: One of :meth:`stream`.

        Returns:
            - ``image`` (str): its file, or its number;
            - ``caption`` (str) and ``log_prob`` (float);
            - ``captions``: if there are several or they are re-ranked, dicts of ``caption``,
              ``log_prob`` and, re-ranked, ``similarity``, with a length penalty ``score``, best
              first;
            - ``concepts``: dicts of ``concept`` and ``probability``, likeliest first;
            - ``patches``: dicts of ``patch`` (its number in the grid, row by row) and ``concept``
              that were mixed.
        """
        found: dict[str, Any] = {
            "image": sample.get("img_path"),
            "caption": sample.pred_caption,
            "log_prob": sample.pred_score,
        }
        if "pred_captions" in sample:
            found["captions"] = [
                {key: value for key, value in f._asdict().items() if value is not None}
                for f in sample.pred_captions
            ]
        concepts, patches = concepts_of_sample(sample, self._words)
        found["concepts"] = [{"concept": c, "probability": p} for c, p in concepts]
        found["patches"] = [{"patch": i, "concept": c} for i, c in patches]
        return found

    def to_sheet_entry(
        self, image: Image.Image, sample: DataSample, references: Sequence[str] = ()
    ) -> SheetEntry:
        """What a contact sheet shows of an image, which is made smaller."""
        concepts, patches = concepts_of_sample(sample, self._words)
        title = printable(Path(str(sample.get("img_path", ""))).name)
        image = image.copy()
        image.thumbnail(_SHOWN)
        return SheetEntry(image, sample.pred_caption, references, concepts, patches, title)

    def identity(self) -> str:
        """Return a short hash of weights, vocabulary, concepts and CLIP, as a name of the model."""
        return model_hash(self.model, self._words)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patches."""
        return self.backbone.grid

    def visualize(
        self, inputs: list[Image.Image], preds: list[DataSample], show: bool = False, **_: Any
    ) -> list[Image.Image]:
        """Draw images with their captions, concepts and mixed patches.

        Args:
            inputs: n images.
            preds: Their data samples.
            show: Whether to open them in the system's viewer. Defaults to False.
        """
        pairs = zip(inputs, preds, strict=True)
        drawn = [
            contact_sheet([self.to_sheet_entry(*pair)], self.grid, columns=1) for pair in pairs
        ]
        for picture in drawn if show else ():
            picture.show()
        return drawn

    def postprocess(
        self, preds: list[Any], visualization: list[Any], return_datasample: bool = False, **_: Any
    ) -> dict[str, list[Any]]:
        """What :meth:`__call__` returns of data samples, errors and drawings."""
        if not return_datasample:
            preds = [p if isinstance(p, dict) else self.to_dict(p) for p in preds]
        return {"predictions": preds, "visualization": visualization}

    def _init_pipeline(self, cfg: Any = None) -> Callable[[Image.Image], Tensor]:
        return self.backbone.preprocess


def _build(
    model: str | os.PathLike | Config | dict | None, weights: str | os.PathLike | None
) -> PCMNet:
    if model is None and weights is None:
        raise UserError("give weights=FILE of tools/export.py, or a model's name")
    if isinstance(model, str | os.PathLike) and Path(model).suffix in ("", ".safetensors"):
        if weights is not None:
            raise UserError(f"model={str(model)!r} brings its weights: drop weights=")
        model, weights = None, model
    if model is None:
        assert weights is not None
        path = Path(weights)
        # A name has no ending, a file has one.
        if not path.suffix and not path.exists():
            path = find_weights(str(weights))
        if path.is_file() and not is_captioner(path):
            raise UserError(
                f"{path} does not know its config: give the config too, or make a captioner's "
                "file of both with tools/export.py CONFIG CHECKPOINT"
            )
        return load_captioner(path)
    if weights is None:
        raise UserError("a config needs weights: give weights=CHECKPOINT")
    if isinstance(model, str | os.PathLike):
        cfg = Config.fromfile(model)
    else:
        cfg = model if isinstance(model, Config) else Config(model)
    built = build_with_clip(cfg)
    load_weights(built, str(weights))
    return built


def build_with_clip(cfg: Config) -> PCMNet:
    """Build the captioner of a config with the CLIP that the config names, for images.

    Args:
        cfg: Has ``model``, and ``clip`` unless the model has a backbone.

    Raises:
        UserError: If it names no CLIP, or is of a captioner that looks at images by itself.
    """
    assert_is_captioner(cfg.model)
    drop_clip_head(cfg)
    settings = dict(cfg.model)
    if settings.get("backbone") is None:
        if cfg.get("clip") is None:
            raise UserError("the config names no CLIP: clip=dict(model=..., pretrained=...)")
        settings["backbone"] = {
            "type": "pcm_plugin.OpenCLIPBackbone",
            "model_name": cfg.clip.model,
            "pretrained": cfg.clip.get("pretrained"),
            "pool": cfg.clip.get("pool", 1),
        }
    return MODELS.build(settings)
