"""Write one split of a caption file as COCO captions JSON, or any captions as JSONL.

    python tools/convert_captions.py dataset_coco.json --split val --out data/coco/captions_val.json
    python tools/convert_captions.py captions.csv --column text --out captions.jsonl

tools/extract.py takes COCO captions JSON with a folder of images. It needs captions whose images
have file names, as in Karpathy's and Flickr's files and in tables with an image column.
"""

import argparse
from pathlib import Path

from pcm_plugin.commands.caption_arguments import add_caption_arguments, caption_file
from pcm_plugin.errors import UserError, plain_errors
from pcm_plugin.formats.captions.caption_file import write_jsonl
from pcm_plugin.formats.coco import write_coco_captions
from pcm_plugin.synthesis.extract.sources import caption_file_images


@plain_errors()
def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_caption_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="file to write: .json or .jsonl")
    args = parser.parse_args()
    if args.out.suffix not in (".json", ".jsonl"):
        raise UserError(f"--out must end in .json or .jsonl, got {args.out}")
    captions, report = caption_file(args)
    print(report, flush=True)
    if args.out.suffix == ".jsonl":
        write_jsonl(captions, args.out)
    else:
        write_coco_captions(args.out, caption_file_images(captions))
    print(f"written to {args.out}")
