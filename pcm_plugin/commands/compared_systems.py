"""Captioning systems of ``pcm compare``: the captioner, models of transformers and files."""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcm_plugin.apis import CaptionInferencer, ImageToTextModel
from pcm_plugin.errors import UserError
from pcm_plugin.evaluation.annotations import Prediction, read_predictions
from pcm_plugin.evaluation.matching import ImageName, match_images
from pcm_plugin.formats.image_ids import name_some, unique_ids
from pcm_plugin.formats.images.folder import printable
from pcm_plugin.formats.images.image_io import read_image


@dataclass
class System:
    """A captioning system.

    Attributes:
        name: Its unique name.
        caption: Returns an iterator over the captions of image files, in order.
        prompt: Prompt, if it has one.
    """

    name: str
    caption: Callable[[list[str]], Iterator[str]]
    prompt: str | None = None


def open_others(args: argparse.Namespace, names: dict[str, ImageName]) -> list[System]:
    """Open the systems of ``--with``, without the weights of models.

    Raises:
        MissingFileError: If a file or model does not exist.
        UserError: If it cannot be used; see :class:`.ImageToTextModel`.
    """
    prompts = dict(args.prompts)
    # Files are read first: they are checked faster than models.
    fixed = {name: read_captions(name, names) for name in args.others if name.endswith(".json")}
    systems = []
    for name in args.others:
        if name in fixed:
            systems.append(file_system(name, fixed[name]))
        elif Path(name).is_file():
            raise UserError(
                f"--with {name} must be the folder or name of a model of transformers, or a COCO "
                f"results file (.json): caption with it first, pcm caption {name} IMAGES --out "
                "NAME.json"
            )
        else:
            systems.append(model_system(args, ImageToTextModel(name, prompts.get(name))))
    return systems


def read_captions(file: str, names: dict[str, ImageName]) -> dict[str, str]:
    """Return the caption of each image file in a COCO results file.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If it is not a results file, or an image has no caption.
    """
    predictions: list[Prediction] = read_predictions(file)
    matched = match_images([*names.values()], [prediction.name for prediction in predictions])
    without = [path for path, index in zip(names, matched, strict=True) if index is None]
    if without:
        raise UserError(
            f"{len(without):,} of {len(names):,} images have no caption in {file}: "
            f"{name_some(printable(path) for path in without)}; ids there are "
            f"{name_some(prediction.image_id for prediction in predictions)}"
        )
    return {
        path: predictions[index].caption
        for path, index in zip(names, matched, strict=True)
        if index is not None
    }


def file_system(name: str, captions: dict[str, str]) -> System:
    """Return the system of a COCO results file."""
    return System(name, lambda paths: iter([captions[path] for path in paths]))


def model_system(args: argparse.Namespace, model: ImageToTextModel) -> System:
    """Return the system of a model of transformers, which is loaded when it is used."""

    def caption(paths: list[str]) -> Iterator[str]:
        try:
            model.load(args.device or default_device(), args.dtype)
            for start in range(0, len(paths), args.batch_size):
                images = [read_image(path) for path in paths[start : start + args.batch_size]]
                yield from model.caption(images, args.beam_size, args.max_new_tokens)
        finally:
            model.unload()

    return System(model.name, caption, model.prompt)


def captioner_system(
    args: argparse.Namespace, inferencer: CaptionInferencer, decoding: dict[str, Any]
) -> System:
    """Return the system of the captioner."""

    def caption(paths: list[str]) -> Iterator[str]:
        for _, sample in inferencer.stream(paths, args.batch_size, **decoding):
            yield sample.pred_caption

    return System(args.weights, caption)


def system_names(args: argparse.Namespace) -> dict[str, str]:
    """Return a unique name for each system as given: the last part of its path if possible.

    Raises:
        UserError: If a system is given twice.
    """
    given = [args.weights, *args.others]
    repeated = sorted({name for name in given if given.count(name) > 1})
    if repeated:
        raise UserError(f"each system must be given once, got {repeated[0]} several times")
    # The name of a model on the hub has an owner, which is part of its name.
    parts = [(Path(name).name if Path(name).exists() else name, name) for name in given]
    return {name: str(unique) for name, unique in zip(given, unique_ids(parts), strict=True)}


def default_device() -> str:
    """Return a GPU if available, or the CPU."""
    from mmengine.device import get_device

    return get_device()
