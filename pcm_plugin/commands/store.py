"""Inspect, verify, merge and export feature stores.

pcm store info STORE
pcm store verify FOLDER          # folder of any stage
pcm store merge STORE STORE ... --out NEW
pcm store merge STORE STORE ... --pairs PAIRS --out NEW    # keep only some pairs of a store
pcm store export STORE --out FOLDER
pcm store export-pairs STORE --images FOLDER --format kohya --out NEW
pcm store sheet STORE --images FOLDER --out sheet.png    # draw pairs with their scores
"""

import argparse
import json
from pathlib import Path
from typing import Any

from pcm_plugin.commands.argument_types import positive_integer
from pcm_plugin.errors import UserError, plain_errors
from pcm_plugin.formats.atomic_io import sha256


def info(path: Path) -> None:
    """Print the contents of a store and the settings that made it."""
    import numpy as np

    from pcm_plugin.formats.feature_shard import FORMAT
    from pcm_plugin.formats.feature_store import FeatureStore
    from pcm_plugin.formats.shards import ShardFolder

    store, folder = FeatureStore(path), ShardFolder(path, FORMAT)
    size = sum(facts["bytes"] for r in folder.shards.values() for facts in r["files"].values())
    images = f"{store.is_image.sum():,} images" if store.has_images else "no images"
    print(f"{path}: {images}, {store.num_captions:,} captions, {size / 1e6:,.1f} MB")
    print(f"  {len(folder.shards):,} shards; {folder.num_skipped:,} images skipped")
    print(f"  {store.num_patches} patches of width {store.patch_dim}, CLIP width {store.clip_dim}")
    scores = store.clip_scores if store.has_images else np.empty(0)
    scores = scores[~np.isnan(scores)]  # captions alone have none
    if len(scores):
        low, middle, high = np.percentile(scores, (5, 50, 95))
        print(f"  CLIP score (2.5 cos): median {middle:.3f}, 5 to 95 %: {low:.3f} to {high:.3f}")
    for key, value in store.settings.items():
        print(f"  {key}: {json.dumps(value, ensure_ascii=False)}")


def verify(path: Path) -> None:
    """Verify the checksum of every file of a folder of shards."""
    from pcm_plugin.formats.clip_head import CLIP_HEAD
    from pcm_plugin.formats.shards import ShardFolder

    folder = ShardFolder(path, None)
    damaged = folder.find_damaged(progress=True)
    head = folder.manifest["info"].get("clip_head")
    if head and (not (path / CLIP_HEAD).is_file() or sha256(path / CLIP_HEAD) != head):
        damaged.append(CLIP_HEAD)
    for file in damaged:
        print(f"damaged: {path / file}")
    if damaged:
        raise UserError(
            f"{len(damaged)} files are not as they were written: delete them, and run the command "
            "that made the folder again"
        )
    missing = folder.manifest["num_expected"] - len(folder.shards)
    if missing > 0:
        raise UserError(f"{path} lacks {missing} shards: run the command that made it again")
    print(f"{path}: all {len(folder.shards)} shards are as they were written")


def merge(args: argparse.Namespace) -> None:
    """Merge stores, and pairs of them if ``--pairs`` is passed."""
    from pcm_plugin.formats.feature_store import FeatureStore
    from pcm_plugin.formats.pair_selection import PAIRS_FILE
    from pcm_plugin.synthesis.pipeline import stores
    from pcm_plugin.synthesis.pipeline.merged_pairs import merge_pairs

    pairs = merge_pairs(args.stores, args.pairs) if args.pairs else None
    stores.merge(args.stores, args.out, args.prefix_ids)
    info(args.out)
    if pairs is not None:
        pairs.to_file(args.out / PAIRS_FILE, FeatureStore(args.out).identity)
        print(f"{args.out / PAIRS_FILE}: {len(pairs.caption):,} pairs")


def sheet(args: argparse.Namespace) -> None:
    """Draw images with their captions and CLIP scores."""
    import numpy as np

    from pcm_plugin.formats.feature_store import FeatureStore
    from pcm_plugin.formats.pair_selection import load_pairs
    from pcm_plugin.synthesis.extract.store_images import load_images
    from pcm_plugin.visualization import SheetEntry, contact_sheet, save_sheet

    store = FeatureStore(args.store)
    store.require_images("pcm store sheet")
    pairs = load_pairs(store, args.pairs)
    if args.order == "random":
        order = np.random.default_rng(args.seed).permutation(len(pairs.caption))
    else:
        order = np.argsort(pairs.clip_score, kind="stable")
        order = order if args.order == "lowest" else order[::-1]
    chosen = order[: args.count].tolist()
    images = load_images(store, [int(pairs.image[p]) for p in chosen], args.images)
    entries = []
    for p, image in zip(chosen, images, strict=True):
        image_id = store.record(int(pairs.image[p]))["image_id"]
        title = f"{image_id}, CLIP score {pairs.clip_score[p]:.3f}"
        entries.append(SheetEntry(image, store.caption(int(pairs.caption[p])), title=title))
    drawn = contact_sheet(entries, columns=args.columns, title=f"Pairs of {store.path.name}")
    save_sheet(drawn, args.out)
    print(f"{len(entries)} of {len(pairs.caption):,} pairs: {args.out}")


FORMAT_OPTIONS = {
    "webdataset": ("shard_size",),
    "imagefolder": (),
    "llava": ("prompt",),
    "kohya": ("concept", "repeats"),
}
"""Options of each format of ``export-pairs``."""


def format_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of ``export-pairs`` that were given.

    Raises:
        UserError: If one of them is for another format.
    """
    given = {
        name: getattr(args, name)
        for names in FORMAT_OPTIONS.values()
        for name in names
        if getattr(args, name) is not None
    }
    for name in given.keys() - set(FORMAT_OPTIONS[args.format]):
        option = f"--{name.replace('_', '-')}"
        raise UserError(f"{option} has no effect with --format {args.format}: leave it out")
    return given


@plain_errors()
def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("info", "print the contents of a store and the settings that made it"),
        ("verify", "verify the checksums of all files"),
    ):
        commands.add_parser(name, help=text).add_argument("folder", type=Path)
    merging = commands.add_parser("merge", help="merge stores of the same CLIP")
    merging.add_argument("stores", nargs="+", type=Path)
    merging.add_argument(
        "--prefix-ids",
        action="store_true",
        help="prefix image ids (1-7) and file names (1/7.png) with the number of the store",
    )
    merging.add_argument(
        "--pairs",
        nargs="+",
        type=Path,
        default=[],
        help="files of pairs, each of one of the stores: write OUT/pairs.safetensors with them, "
        "and with all pairs of the other stores",
    )
    exporting = commands.add_parser(
        "export", help="write one .npz per image, as the released code reads them"
    )
    exporting.add_argument("store", type=Path)
    for command in (merging, exporting):
        command.add_argument("--out", type=Path, required=True, help="folder to write")
    pairing = commands.add_parser(
        "export-pairs", help="write images and captions in a format of other tools"
    )
    pairing.add_argument("store", type=Path)
    pairing.add_argument("--format", choices=list(FORMAT_OPTIONS), required=True)
    pairing.add_argument("--out", type=Path, required=True, help="folder to create")
    pairing.add_argument("--prompt", help="for llava: question (default: Describe the image.)")
    pairing.add_argument("--concept", help="for kohya: name of the folder (default: images)")
    pairing.add_argument(
        "--repeats", type=positive_integer, help="for kohya: uses per epoch (default: 1)"
    )
    pairing.add_argument(
        "--shard-size",
        type=positive_integer,
        help="for webdataset: pairs per archive (default: 1000)",
    )
    drawing = commands.add_parser("sheet", help="draw pairs with their CLIP scores")
    drawing.add_argument("store", type=Path)
    for command in (pairing, drawing):
        command.add_argument(
            "--images", type=Path, required=True, help="folder from which the store was extracted"
        )
        command.add_argument("--pairs", type=Path, help="pairs of `pcm refine`")
    drawing.add_argument("--count", type=positive_integer, default=24)
    drawing.add_argument("--columns", type=positive_integer, default=3)
    drawing.add_argument("--order", choices=["random", "lowest", "highest"], default="random")
    drawing.add_argument("--seed", type=int, default=0, help="seed of the random order")
    drawing.add_argument("--out", type=Path, required=True, help="PNG to write")
    args = parser.parse_args()
    if args.command == "info":
        info(args.folder)
    elif args.command == "verify":
        verify(args.folder)
    elif args.command == "merge":
        merge(args)
    elif args.command == "sheet":
        sheet(args)
    elif args.command == "export-pairs":
        from pcm_plugin.synthesis.pipeline.exported_pairs import PairFormat, export_pairs

        settings = PairFormat(args.format, **format_options(args))
        count = export_pairs(args.store, args.images, args.out, settings, args.pairs)
        print(f"{args.out}: {count:,} pairs")
    else:
        from pcm_plugin.synthesis.pipeline import stores

        print(f"{args.out}: {stores.export(args.store, args.out):,} images")
