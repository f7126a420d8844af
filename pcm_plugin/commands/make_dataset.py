"""Make a training set from captions: images, features and a config.

    pcm make-dataset CAPTIONS --recipe sd15_vitb32 --out data/mine --dry-run
    pcm make-dataset CAPTIONS --recipe sd15_vitb32 --out data/mine
    torchrun --nproc_per_node 8 -m pcm_plugin make-dataset ...
    srun pcm make-dataset ...
    pcm train data/mine/config.py

    pcm make-dataset CAPTIONS --recipe sd15_vitb32 --out data/mine --photos FOLDER

With --photos, captions are assigned to photos without captions too, and the training sees these.

A text recipe, such as text_vitb32, generates no images: it encodes the captions alone, for a prefix
captioner, CapDec and DeCap.

After an interruption, run the command again to make what is missing. --set changes settings of the
recipe, with values as in --cfg-options: --set generate.steps=30 "generate.prompt=a photo of {}".
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pcm_plugin.commands.caption_arguments import add_caption_arguments, caption_file
from pcm_plugin.commands.logs import show_info
from pcm_plugin.commands.processes import shell_command
from pcm_plugin.engine.cfg_options import CfgOptions
from pcm_plugin.errors import UserError, plain_errors
from pcm_plugin.synthesis.pipeline.stages import STAGES
from pcm_plugin.synthesis.ranks import Rank

if TYPE_CHECKING:
    from pcm_plugin.synthesis.pipeline.recipes import Recipe


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_caption_arguments(parser)
    parser.add_argument(
        "--recipe", required=True, help="name of a recipe in configs/recipes, or a file"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set")
    parser.add_argument(
        "--stages", nargs="+", choices=STAGES, help="stages to run (default: all of the recipe)"
    )
    for split in ("val", "test"):
        parser.add_argument(
            f"--{split}",
            nargs=2,
            metavar=("IMAGES", "CAPTIONS"),
            help=f"real images for {split}: a folder, and a caption file that names them and is "
            "read with the same options as CAPTIONS"
            + (" (default: generated images of captions that are held out)" * (split == "val")),
        )
    parser.add_argument(
        "--photos",
        metavar="FOLDER",
        help="folder of photos without captions, to which captions are assigned too, or with --set "
        "photos.images=photos alone",
    )
    parser.add_argument("--limit", type=int, help="use only the first LIMIT captions")
    parser.add_argument("--device", help="default: the GPU of this rank, or the CPU")
    parser.add_argument(
        "--set",
        nargs="+",
        action=CfgOptions,
        metavar="KEY=VALUE",
        default={},
        help="settings of the recipe to change",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="estimate time and disk space from two batches, report what is done, write nothing",
    )
    return parser.parse_args()


@plain_errors()
def main() -> None:
    """Run the command."""
    args = parse_args()
    from pcm_plugin.synthesis.pipeline.dataset import (
        captions_of,
        has_held_out,
        make_dataset,
        real_sources,
    )
    from pcm_plugin.synthesis.pipeline.estimate import estimate
    from pcm_plugin.synthesis.pipeline.recipes import load_recipe

    show_info()
    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit must be at least 1, got {args.limit}")
    photos = {} if args.photos is None else {"photos.folder": args.photos}
    recipe = load_recipe(args.recipe, {**args.set, **photos})
    rank = Rank.from_environment()
    captions, report = caption_file(args)
    if rank.index == 0:
        print(report, flush=True)
    real = {}
    for split in ("val", "test"):
        if getattr(args, split):
            images, path = getattr(args, split)
            file = captions_of(split, path, captions)
            counts = file.scan()
            if rank.index == 0:
                print(counts, flush=True)
            real[split] = (images, file)
    if args.dry_run:
        if rank.index == 0:
            device = args.device or rank.device()
            count = min(report.captions, args.limit or report.captions)
            if recipe.photos_alone:
                is_split = has_held_out(recipe, args.out, real)
                few = "images are generated for validation alone"
                print(f"{count:,} captions; {few if is_split else 'no images are generated'}")
            elif recipe.generate is None:
                print(f"{count:,} captions", flush=True)
            else:
                print(f"{count * recipe.generate.images_per_caption:,} pairs", flush=True)
            sources = real_sources(real, recipe, captions)
            print(
                estimate(captions, report.captions, recipe, args.out, device, sources, args.limit)
            )
        return
    make_dataset(
        captions,
        recipe,
        args.out,
        args.stages,
        real,
        args.limit,
        args.device,
        rank,
    )
    if rank.index == 0:
        print_configs(args.out, recipe)


def print_configs(out: Path, recipe: "Recipe") -> None:
    """Print what is held out of a finished data set, and the commands that train on it."""
    from pcm_plugin.synthesis.pipeline.dataset import has_held_out
    from pcm_plugin.synthesis.pipeline.dataset_config import CONFIG
    from pcm_plugin.synthesis.pipeline.text_captioners import TEXT_CAPTIONERS
    from pcm_plugin.synthesis.pipeline.validation import read_summary

    if not (out / CONFIG).is_file():
        return
    if has_held_out(recipe, out):
        print(read_summary(out))
    print(f"{out} is finished; train on it with:")
    if recipe.generate is not None:
        print(f"  {shell_command(['train', out / CONFIG])}")
        return
    for captioner in TEXT_CAPTIONERS.values():
        title = captioner.title + (", the default" if captioner.config == CONFIG else "")
        print(f"  {shell_command(['train', out / captioner.config])}  # {title}")
