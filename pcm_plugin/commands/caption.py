"""Caption image files and folders.

pcm caption captioner.safetensors photos/ more/one.jpg
pcm caption pcm-net_toy images/ --out captions.json --sheet sheet.png --html page.html
pcm caption captioner.safetensors photos/ --text-files
pcm caption best.pth images/ --config configs/pcm_coco.py --num-captions 3 --beam-size 5
pcm caption decap.safetensors photo.jpg --box 10 20 200 300 --point 320 240 --patch-mode sclip
pcm caption decap.safetensors val2017/ --boxes instances_val2017.json --out regions.json

Prints one line per image: its file, a tab, its caption. The weights are a file of `pcm export`,
the name of a model that comes with the package, or a checkpoint with the --config of its training.

--out FILE.json writes a COCO results file, [{"image_id": ..., "caption": ..., ...}, ...], for
`pcm score` and pycocotools. FILE.jsonl has the same values, one image per line; FILE.csv has one
line per caption; metadata.jsonl, in the folder of the images, is read by Hugging Face datasets.
--text-files writes photos/1.txt next to photos/1.jpg.

--box and --point caption regions of one image, --boxes those of a file: COCO annotations with bbox,
or JSONL with image and box ([x0, y0, x1, y1]) or point ([x, y]) per line, whose images are in the
given folder. They need a captioner whose only input is a CLIP feature, such as DeCap. Coordinates
are pixels from the top left corner; x1 and y1 are exclusive.

The image id is the number in the file name (42 for COCO_val2014_000000000042.jpg, 000000000042.jpg
and 42.png), otherwise the name without suffix; images that would have the same id keep the suffix.
"""

import argparse
import io
import sys
from pathlib import Path

from pcm_plugin.errors import UserError, plain_errors

BATCH_SIZE = 32


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "weights", help="file of `pcm export` or name of a model; a checkpoint with --config"
    )
    parser.add_argument("images", nargs="+", help="image files, or folders of images")
    parser.add_argument("--config", help="config of a checkpoint: file, or name such as pcm_coco")
    parser.add_argument("--device", help="device, e.g. cuda:0 (default: a GPU if available)")
    parser.add_argument(
        "--batch-size", type=int, default=BATCH_SIZE, help="batch size (default: %(default)s)"
    )
    decoding = parser.add_argument_group("decoding", "default: the settings of the model")
    decoding.add_argument("--beam-size", type=int, help="number of beams; 1 is greedy search")
    decoding.add_argument(
        "--num-captions", type=int, help="number of captions per image, at most --beam-size"
    )
    decoding.add_argument("--min-len", type=int, help="minimum number of words, pieces or tokens")
    decoding.add_argument(
        "--max-len",
        type=int,
        help="maximum number of words, pieces or tokens, including the stop token",
    )
    decoding.add_argument(
        "--length-penalty",
        type=float,
        help="exponent of the length by which the log-probability of a caption is divided: 0 ranks "
        "by the sum of the words' log-probabilities, 1 by their mean",
    )
    decoding.add_argument(
        "--rerank-weight",
        type=float,
        help="re-rank the beam by log-probability plus this weight times the CLIP cosine of image "
        "and caption",
    )
    decoding.add_argument(
        "--rerank",
        choices=("sum", "ranks"),
        help="sum: re-rank by --rerank-weight; ranks: by the sum of the ranks of a caption by mean "
        "log-probability and by CLIP cosine, without a weight",
    )
    decoding.add_argument(
        "--rerank-clip",
        metavar="MODEL",
        help="second CLIP for --rerank ranks: name for open_clip, hf-hub:ORG/REPO or "
        "local-dir:FOLDER",
    )
    decoding.add_argument(
        "--rerank-clip-pretrained",
        metavar="WEIGHTS",
        help="tag or file of the weights of --rerank-clip",
    )
    decoding.add_argument("--start", help="words with which captions start")
    decoding.add_argument(
        "--include",
        action="append",
        metavar="WORDS",
        help="words that captions contain; may be repeated",
    )
    decoding.add_argument(
        "--exclude",
        action="append",
        metavar="WORDS",
        help="words that no caption contains; may be repeated",
    )
    decoding.add_argument("--prefix", help="text to put before each caption, without a space")
    decoding.add_argument("--suffix", help="text to put after each caption, without a space")
    regions = parser.add_argument_group("regions")
    regions.add_argument(
        "--box",
        nargs=4,
        type=number,
        action="append",
        metavar=("X0", "Y0", "X1", "Y1"),
        help="box of the image to caption; may be repeated",
    )
    regions.add_argument(
        "--point",
        nargs=2,
        type=number,
        action="append",
        metavar=("X", "Y"),
        help="point of the image to caption; may be repeated",
    )
    regions.add_argument(
        "--boxes", metavar="FILE", help="regions of many images: COCO annotations, or .jsonl"
    )
    regions.add_argument(
        "--patch-mode",
        help="attention of CLIP's last block for the patches of regions: plain (CLIP's own), "
        "maskclip or sclip (default: that of the captioner)",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--out",
        help="file with ids, captions and log-probabilities (.json, .jsonl, .csv), and with "
        "concepts and mixed patches (.json, .jsonl)",
    )
    output.add_argument(
        "--text-files",
        action="store_true",
        help="write the captions of each image to a .txt file next to it; existing files are kept, "
        "and without --out, --sheet and --html their images are not captioned again",
    )
    output.add_argument(
        "--overwrite",
        action="store_true",
        help="replace existing text files, or an existing metadata.jsonl",
    )
    output.add_argument(
        "--sheet", help="PNG of the images with captions, concepts and mixed patches"
    )
    output.add_argument("--html", help="web page with the same content, in one file")
    return parser.parse_args()


def number(text: str) -> float:
    """Parse a coordinate; one without decimals becomes an int."""
    value = float(text)
    return int(value) if value.is_integer() else value


def check_args(args: argparse.Namespace) -> None:
    """Check the arguments that need no model.

    Raises:
        UserError: If one is out of range.
    """
    if args.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, got {args.batch_size}")
    for option in ("out", "sheet", "html"):
        file = getattr(args, option)
        if file and Path(file).is_dir():
            raise UserError(f"--{option} must be a file name, got the folder {file}")
    if args.patch_mode and not (args.box or args.point or args.boxes):
        raise UserError("--patch-mode has no effect without --box, --point and --boxes")


@plain_errors()
def main() -> None:
    """Run the command."""
    args = parse_args()
    check_args(args)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Captions must not be lost because the terminal does not support Unicode.
        sys.stdout.reconfigure(errors="backslashreplace")
    if args.box or args.point or args.boxes:
        from pcm_plugin.commands.captioning_regions import run_regions

        run_regions(args)
        return
    from pcm_plugin.commands.captioning import run

    ids, broken = run(args)
    if broken:
        raise UserError(f"{broken:,} of {len(ids):,} images could not be read")
