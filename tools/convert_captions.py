"""Write one split of a caption file as COCO captions JSON, or any captions as JSONL.

    python tools/convert_captions.py dataset_coco.json --split val --out data/coco/captions_val.json
    python tools/convert_captions.py captions.csv --column text --out captions.jsonl

COCO captions JSON is what tools/extract.py takes beside a folder of images; it needs captions
whose images have file names, as Karpathy's and Flickr's files and tables with an image column do.
"""

import argparse
from pathlib import Path

from pcm_plugin.datasets.coco import write_coco_captions
from pcm_plugin.plain_errors import plain_errors
from pcm_plugin.synthesis.arguments import add_caption_arguments, caption_file
from pcm_plugin.synthesis.captions import CaptionFile, write_jsonl


def write_coco(captions: CaptionFile, path: Path) -> None:
    """Gather the captions of each image and write a COCO captions file."""
    images: dict[tuple[str, str], list[str]] = {}
    for caption in captions:
        if caption.file_name is None:
            raise ValueError(
                f"{captions.path}: caption {caption.id} names no image file, which COCO captions "
                "JSON needs: give --out with the ending .jsonl"
            )
        images.setdefault((caption.image_id, caption.file_name), []).append(caption.text)
    write_coco_captions(path, ((image_id, name, own) for (image_id, name), own in images.items()))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_caption_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="file to write: .json or .jsonl")
    args = parser.parse_args()
    if args.out.suffix not in (".json", ".jsonl"):
        raise ValueError(f"--out {args.out}: give a name that ends in .json or .jsonl")
    captions, _ = caption_file(args)
    write = write_coco if args.out.suffix == ".json" else write_jsonl
    write(captions, args.out)
    print(f"written to {args.out}")


if __name__ == "__main__":
    with plain_errors():
        main()
