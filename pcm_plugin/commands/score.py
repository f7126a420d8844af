"""Score predicted captions against references.

pcm score captions.json captions_val2014.json
pcm score captions.json dataset_coco.json --split test --scorers BLEU CIDEr METEOR
pcm score captions.json refs.json --scorers CLIPScore --images val2014 \
    --model ViT-B-32-quickgelu --pretrained openai
pcm score captions.json nocaps_val.json --groups nocaps_val.json

The predictions are a COCO results file, [{"image_id": 7, "caption": "a dog"}, ...], as written by
pcm caption --out and pcm convert-captions --results. The references are a caption file
that names images: COCO captions JSON, Karpathy's JSON, a Flickr token file, a table or JSONL.
Images are matched by id, file name or number: 42, "000000000042.jpg" and
"val2014/COCO_val2014_000000000042.jpg" are the same image.

As in the COCO evaluation, each prediction needs references, and each image with references needs a
prediction. With --partial, the images in both files are scored.
"""

import argparse
import math
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from pcm_plugin.commands.caption_arguments import add_caption_arguments, open_captions
from pcm_plugin.errors import MissingFileError, UserError, plain_errors
from pcm_plugin.evaluation import CaptionMetric
from pcm_plugin.evaluation.annotations import Prediction, read_predictions
from pcm_plugin.evaluation.references import References
from pcm_plugin.evaluation.scorers import DEFAULT_SCORERS
from pcm_plugin.evaluation.scoring import ALL_SCORERS, TOKENIZERS, finite_scores
from pcm_plugin.formats.atomic_io import write_json
from pcm_plugin.formats.coco import CocoImage
from pcm_plugin.formats.images.folder import find_name
from pcm_plugin.formats.images.image_io import read_image

BATCH = 32


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("predictions", help="predictions: COCO results file")
    add_caption_arguments(
        parser, name="references", help="caption file with the references", default_split="test"
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="score the images that have both a prediction and references, and ignore the others",
    )
    parser.add_argument(
        "--scorers",
        nargs="+",
        choices=ALL_SCORERS,
        default=list(DEFAULT_SCORERS),
        help=f"metrics to compute (default: {' '.join(DEFAULT_SCORERS)})",
    )
    parser.add_argument(
        "--tokenizer",
        choices=TOKENIZERS,
        default="ptb",
        help="tokenizer of predictions and references (default: %(default)s)",
    )
    parser.add_argument(
        "--train-captions", help="caption file of the training set, for the diversity score `novel`"
    )
    parser.add_argument("--images", help="folder of the images, for CLIPScore")
    parser.add_argument("--model", help="open_clip model, for CLIPScore")
    parser.add_argument(
        "--pretrained", help="weights of the open_clip model: a tag of open_clip or a file"
    )
    parser.add_argument("--per-image", help="JSON file to write the scores of each image to")
    parser.add_argument(
        "--groups",
        metavar="FILE",
        help="COCO captions JSON that assigns images to groups, each of which is also scored alone",
    )
    parser.add_argument(
        "--group-field",
        default="domain",
        help="field of the images in --groups with the name of the group (default: %(default)s, as "
        "in NoCaps)",
    )
    parser.add_argument("--out", help="JSON file to write the scores to")
    args = parser.parse_args()
    needs_clip = "CLIPScore" in args.scorers
    if needs_clip and not (args.images and args.model):
        parser.error("CLIPScore needs --images FOLDER and --model NAME")
    if not needs_clip and (args.images or args.model or args.pretrained):
        parser.error("--images, --model and --pretrained need --scorers CLIPScore")
    return args


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


def score(args: argparse.Namespace) -> tuple[dict[str, float], list[str]]:
    """Score the captions; return the scores, and remarks why some of them are undefined."""
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
    return metric.evaluate(len(scored)), metric.remarks


@plain_errors()
def main() -> None:
    """Run the command."""
    args = parse_args()
    scores, remarks = score(args)
    if args.out:
        about = {"remarks": remarks} if remarks else {}
        write_json(Path(args.out), {**finite_scores(scores), **about})
    width = max(15, *map(len, scores))
    cells = ["n/a" if math.isnan(value) else f"{value:.4f}" for value in scores.values()]
    lines = (f"{name:{width}}{cell:>10}" for name, cell in zip(scores, cells, strict=True))
    print("\n".join(lines), flush=True)
