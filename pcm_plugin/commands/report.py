"""Write a web page about one training run.

pcm report work_dirs/pcm_toy
pcm report work_dirs/pcm_coco --images data/coco/images --train-images FOLDER
pcm report work_dirs/pcm_toy --photos FOLDER --json report.json
pcm report work_dirs/config --photos

The page shows loss and score curves, a table of scores, training pairs with low and high CLIP
scores, the best, median and worst captions by CIDEr, and the config. It is one file that needs no
network. Config, checkpoint and data are those of the run in the work folder; the captions are
predicted on the test split, or on --split val.

With --photos, the captioner is also measured on photos without captions: scores of their captions
that need no references, the gap between synthetic images and photos, concepts in one and not in the
other, and the most and least typical images. A sentence at the top says how good the captioner
probably is, and what would improve it most.
"""

import argparse
from pathlib import Path

from pcm_plugin.commands.garbage_collection import paused_garbage_collection
from pcm_plugin.errors import UserError, plain_errors
from pcm_plugin.formats.languages import check_language


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work_dir", type=Path, nargs="?", help="work folder of the run (required)")
    parser.add_argument("--config", help="config file (default: the one in the work folder)")
    parser.add_argument(
        "--checkpoint", help="checkpoint to evaluate (default: the best on validation, or the last)"
    )
    parser.add_argument(
        "--split", choices=["test", "val"], help="split to caption (default: test, if there is one)"
    )
    parser.add_argument("--images", type=Path, help="folder with the images of that split")
    parser.add_argument(
        "--train-images",
        type=Path,
        help="folder of images or shards that the training features were extracted from",
    )
    parser.add_argument(
        "--count", type=int, default=6, help="number of examples of each kind (default: 6)"
    )
    parser.add_argument(
        "--photos",
        type=Path,
        nargs="?",
        const=True,
        help="folder of photos without captions, or their store of `pcm extract --captions none`; "
        "features of a folder are kept in WORK_DIR/photos (without a value, after WORK_DIR: the "
        "photos of the data set, of pcm make-dataset --photos)",
    )
    parser.add_argument(
        "--photo-images",
        type=Path,
        help="folder of the photos, if --photos is a store or captions were assigned to photos "
        "(default: that of pcm make-dataset --photos)",
    )
    parser.add_argument(
        "--statistics",
        type=Path,
        help="with --photos: safetensors file to write, with mean and standard deviation of each "
        "CLIP feature of training captions, synthetic images and photos",
    )
    parser.add_argument(
        "--language",
        help="with --photos: language of the captions, such as zh, in whose tokens captions and "
        "concepts are compared (default: that of the config's CaptionMetric, or en)",
    )
    parser.add_argument("--json", type=Path, help="file to write with the figures of the page")
    parser.add_argument("--device", help="device, e.g. cuda:0 (default: a GPU if available)")
    parser.add_argument("--out", type=Path, help="page to write (default: WORK_DIR/report.html)")
    args = parser.parse_args()
    if args.work_dir is None:
        hint = ""
        if isinstance(args.photos, Path):
            hint = (
                f": --photos takes {args.photos} as its folder; for the photos of the data set, "
                f"pass WORK_DIR first: pcm report {args.photos} --photos"
            )
        parser.error(f"WORK_DIR is missing{hint}")
    return args


@plain_errors()
def main() -> None:
    """Run the command."""
    args = parse_args()
    if args.count < 1:
        raise UserError(f"--count must be at least 1, got {args.count}")
    for option in ("statistics", "language"):
        if getattr(args, option) is not None and args.photos is None:
            raise UserError(f"--{option} has no effect without --photos: leave it out")
    if args.language is not None:
        check_language(args.language)
    with paused_garbage_collection():
        from pcm_plugin.commands.run_report import build_page
    from pcm_plugin.formats.atomic_io import write_bytes, write_json

    page, figures = build_page(args)
    html = page.encode()
    out = args.out or args.work_dir / "report.html"
    for file in filter(None, (out, args.json)):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, html)
    if args.json:
        write_json(args.json, figures)
        print(args.json)
    print(figures["assessment"])
    print(f"{out}: {len(html) / 2**20:.1f} MiB")
