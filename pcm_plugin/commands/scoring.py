"""Scores of predicted captions, from the options of ``pcm score``."""

import argparse
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from pcm_plugin.commands.caption_arguments import open_captions
from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.evaluation import CaptionMetric
from pcm_plugin.evaluation.annotations import Prediction, read_predictions
from pcm_plugin.evaluation.references import References
from pcm_plugin.formats.coco import CocoImage
from pcm_plugin.formats.images.folder import find_name
from pcm_plugin.formats.images.image_io import read_image

BATCH = 32


def match(
    predictions: list[Prediction], references: References, partial: bool
) -> list[tuple[Prediction, CocoImage]]:
    """Return the predictions to score, each with the references of its image.

    Raises:
        UserError: If images cannot be matched, or some have no counterpart without ``partial``.
    """
    names = [prediction.name for prediction in predictions]
    matched = references.match(names)
    pairs = [(p, image) for p, image in zip(predictions, matched, strict=True) if image]
    gaps = references.describe_gaps(names, matched)
    if not pairs:
        raise UserError(f"no image is in both files: {gaps}")
    if gaps and not partial:
        raise UserError(f"{gaps} (--partial scores the {len(pairs):,} that are in both files)")
    if gaps:
        print(gaps, file=sys.stderr)
    scored = [(p, image) for p, image in pairs if image.captions]
    if len(scored) < len(pairs):
        num_skipped = len(pairs) - len(scored)
        print(f"{num_skipped:,} images have no usable reference in {references}", file=sys.stderr)
    return scored


def find_files(scored: list[tuple[Prediction, CocoImage]], folder: Path) -> list[Path]:
    """Return the image files, named by the references or, if these have no names, the predictions.

    Raises:
        MissingFileError: If a file is missing, or an image has no file name.
    """
    names = [image.file_name or prediction.file_name for prediction, image in scored]
    unnamed = [p.image_id for (p, _), name in zip(scored, names, strict=True) if not name]
    if unnamed:
        raise MissingFileError(
            f"{len(unnamed)} of {len(scored)} images have no file name, such as {unnamed[0]}: "
            "CLIPScore needs references with file_name"
        )
    files = [folder / find_name(folder, str(name)) for name in names]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise MissingFileError(f"{len(missing)} of {len(files)} images are missing: {missing[0]}")
    return files


def read_pixels(metric: CaptionMetric, files: list[Path]) -> torch.Tensor:
    """Return images preprocessed for the CLIP model of the metric, (B, 3, H, W)."""
    return torch.stack([metric.clip.preprocess(read_image(file)) for file in files])


def score(args: argparse.Namespace) -> tuple[dict[str, float], str, list[str]]:
    """Score the captions.

    Returns:
        The scores, a description of the tokens that were compared (empty for CLIPScore alone), and
        remarks why some of the scores are undefined.
    """
    predictions = read_predictions(args.predictions)
    clip = {"model_name": args.model, "pretrained": args.pretrained}
    references, train_captions = open_captions(args, args.references), args.train_captions
    metric = CaptionMetric(
        args.scorers,
        args.tokenizer,
        references,
        None,
        {"type": "pcm_plugin.OpenCLIPBackbone", **clip} if args.model else None,
        None if train_captions is None else references.with_path(train_captions),
        per_image=args.per_image,
        groups=args.groups,
        group_field=args.group_field,
        prefix="",
        partial=args.partial,
        language=args.language,
    )
    assert metric.references is not None
    print(metric.references.file.scan(), file=sys.stderr)
    scored = match(predictions, metric.references, args.partial)
    files = find_files(scored, Path(args.images)) if args.images else []
    for start in tqdm(range(0, len(scored), BATCH), desc="batches", disable=not files):
        batch = {"images": read_pixels(metric, files[start : start + BATCH])} if files else {}
        samples = [
            {"image_id": image.image_id, "pred_caption": prediction.caption}
            for prediction, image in scored[start : start + BATCH]
        ]
        metric.process(batch, samples)
    tokens = metric.tokens if set(args.scorers) != {"CLIPScore"} else ""
    return metric.evaluate(len(scored)), tokens, metric.remarks
