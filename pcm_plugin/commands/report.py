"""Write a web page about one training run.

pcm report work_dirs/pcm_toy
pcm report work_dirs/pcm_coco --images data/coco/images --train-images FOLDER

The page shows loss and score curves, a table of scores, training pairs with low and high CLIP
scores, the best, median and worst captions by CIDEr, and the config. It is one file that needs no
network. Config, checkpoint and data are those of the run in the work folder; the captions are
predicted on the test split, or on --split val.
"""

import argparse
from pathlib import Path

from pcm_plugin.commands.garbage_collection import paused_garbage_collection
from pcm_plugin.errors import UserError, plain_errors


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work_dir", type=Path, help="work folder of the run")
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
    parser.add_argument("--device", help="device, e.g. cuda:0 (default: a GPU if available)")
    parser.add_argument("--out", type=Path, help="page to write (default: WORK_DIR/report.html)")
    return parser.parse_args()


@plain_errors()
def main() -> None:
    """Run the command."""
    args = parse_args()
    if args.count < 1:
        raise UserError(f"--count must be at least 1, got {args.count}")
    with paused_garbage_collection():
        from pcm_plugin.commands.run_report import build_page
    from pcm_plugin.formats.atomic_io import write_bytes

    html = build_page(args).encode()
    out = args.out or args.work_dir / "report.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, html)
    print(f"{out}: {len(html) / 2**20:.1f} MiB")
