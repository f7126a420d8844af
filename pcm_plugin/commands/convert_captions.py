"""Convert captions to COCO JSON, a COCO results file or JSONL.

    pcm convert-captions dataset_coco.json --split val --out data/coco/captions_val.json
    pcm convert-captions captions.csv --column text --out captions.jsonl
    pcm convert-captions predictions.csv --results --out predictions.json

COCO captions JSON (--out NAME.json) is what `pcm extract` reads with a folder of images. It
needs captions with image files, as in Karpathy's JSON, Flickr token files and tables with an image
column. With --results, the captions are predictions and are written as a COCO results file, which
`pcm score` reads; each image must have one caption.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pcm_plugin.commands.caption_arguments import add_caption_arguments, caption_file
from pcm_plugin.errors import UserError, plain_errors

if TYPE_CHECKING:
    from pcm_plugin.formats.captions.caption_file import CaptionFile


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_caption_arguments(parser)
    parser.add_argument(
        "--results",
        action="store_true",
        help="write a COCO results file, with one predicted caption per image",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="file to write: NAME.json or NAME.jsonl"
    )
    return parser.parse_args()


def write_results(captions: "CaptionFile", path: Path) -> None:
    """Write a COCO results file.

    Args:
        captions: File with one caption per image.
        path: File to write, JSON.

    Raises:
        UserError: If a caption has no image, or an image has several captions.
    """
    from pcm_plugin.evaluation.annotations import coco_results
    from pcm_plugin.formats.atomic_io import write_json_list
    from pcm_plugin.formats.captions.by_image import group_by_image

    report = captions.scan()
    if report.without_image:
        raise UserError(
            f"{captions.path}: each prediction must have an image id or a file name, but "
            f"{report.without_image:,} of {report.captions:,} captions have neither"
        )
    images = group_by_image(captions)
    wrong = [image for image in images if len(image.captions) != 1]
    if wrong:
        raise UserError(
            f"{captions.path}: each image must have one predicted caption, but image "
            f"{wrong[0].image_id} has {len(wrong[0].captions)}"
        )
    rows = coco_results((image.image_id, image.captions[0]) for image in images)
    for row, image in zip(rows, images, strict=True):
        if image.file_name:
            row["file_name"] = image.file_name
    write_json_list(path, rows)


@plain_errors()
def main() -> None:
    """Run the command."""
    args = parse_args()
    if args.out.suffix not in (".json", ".jsonl"):
        raise UserError(f"--out must end in .json or .jsonl, got {args.out}")
    if args.results and args.out.suffix != ".json":
        raise UserError(f"--out must end in .json with --results, got {args.out}")
    from pcm_plugin.formats.captions.lines import write_jsonl
    from pcm_plugin.formats.coco import write_coco_captions
    from pcm_plugin.synthesis.extract.open_source import caption_file_images

    captions, report = caption_file(args)
    print(report, flush=True)
    if args.results:
        write_results(captions, args.out)
    elif args.out.suffix == ".jsonl":
        write_jsonl(captions, args.out)
    else:
        write_coco_captions(args.out, caption_file_images(captions))
    print(f"written to {args.out}")
