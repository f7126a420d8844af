"""Import images with captions from Parquet files.

    pcm import-images SYNTHIMGCAP/MSCOCO-SD --out data/coco/synthetic
    pcm import-images train-*.parquet --text-column caption --out data/mine/synthetic
    torchrun --nproc_per_node 8 -m pcm_plugin import-images FOLDER --out FOLDER

Image bytes are copied unchanged. The id of an image and its caption is the row number, counted from
0 over all files in the order of their names. After an interruption, run the command again to make
the missing shards. The next step is `pcm extract`.
"""

import argparse

from pcm_plugin.commands.caption_arguments import format_skipped
from pcm_plugin.errors import plain_errors
from pcm_plugin.synthesis.ranks import Rank


@plain_errors()
def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", help="Parquet files, or a folder of them")
    parser.add_argument("--out", required=True, help="folder for the image shards")
    parser.add_argument("--image-column", default="image", help="column of encoded images")
    parser.add_argument("--text-column", default="text", help="column of captions")
    parser.add_argument("--shard-size", type=int, default=1000, help="rows per shard")
    parser.add_argument("--limit", type=int, help="use only the first LIMIT rows")
    parser.add_argument(
        "--max-invalid",
        type=int,
        default=0,
        help="number of rows without a readable image or caption that may be skipped (default: 0)",
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="accept NAME-00000-of-00032.parquet without all 32 files; ids then count the rows of "
        "the files that exist",
    )
    args = parser.parse_args()
    from pcm_plugin.synthesis.released.import_images import (
        CAPTIONS,
        ImportImagesSettings,
        import_images,
    )

    settings = ImportImagesSettings(args.image_column, args.text_column, args.shard_size)
    folder = import_images(
        args.paths, settings, args.out, args.limit, args.max_invalid, args.partial
    )
    if Rank.from_environment().index != 0:
        return
    records = folder.shards.values()
    images = sum(record["count"] for record in records)
    print(f"{folder.path}: {images:,} images in {len(records)} shards, captions in {CAPTIONS}")
    print(format_skipped(folder), end="")
