"""Extract CLIP features of images and captions to a feature store.

    pcm extract IMAGE_SHARDS --model ViT-B-32-quickgelu --pretrained openai --out STORE
    pcm extract IMAGE_FOLDER --captions captions.json --model ... --out STORE
    pcm extract COCO --captions dataset_coco.json --split val --model ... --out STORE
    pcm extract SYNTHIMGCAP --captions annotations.pkl --vocabulary vocabulary.txt ...
    torchrun --nproc_per_node 8 -m pcm_plugin extract ...

After an interruption, run the command again to make the missing shards.
"""

import argparse
from typing import TYPE_CHECKING

from pcm_plugin.commands.caption_arguments import (
    add_caption_arguments,
    add_feature_arguments,
    caption_file,
    format_skipped,
    print_clip_scores,
)
from pcm_plugin.commands.logs import show_info
from pcm_plugin.errors import plain_errors
from pcm_plugin.synthesis.ranks import Rank

if TYPE_CHECKING:
    from pcm_plugin.formats.captions.caption_file import CaptionFile


def _captions(args: argparse.Namespace) -> "CaptionFile | str | None":
    plain = args.captions in (None, "none") or args.captions.endswith((".pkl", ".pickle"))
    if plain:
        return args.captions
    captions, report = caption_file(args)
    if Rank.from_environment().index == 0:
        print(report, flush=True)
    return captions


@plain_errors()
def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="folder of generated images, or of image files")
    add_caption_arguments(
        parser,
        option=True,
        help="for image files: a caption file that names them (COCO captions JSON, Karpathy's "
        "JSON, a Flickr token file, a table or JSONL with file_name), SynthImgCap's annotation "
        "pickle, or none",
    )
    parser.add_argument("--vocabulary", help="for SynthImgCap's pickle: its vocabulary.txt")
    parser.add_argument(
        "--path-template",
        help="for SynthImgCap's pickle: path of an image (default: {split_id}/{image_id}.jpg, or "
        "{image_id}.jpg if the annotations have no split_id)",
    )
    parser.add_argument(
        "--skip-missing", action="store_true", help="skip images whose file is missing"
    )
    parser.add_argument("--model", required=True, help="open_clip name, or local-dir:FOLDER")
    parser.add_argument("--pretrained", help="its weights: open_clip's tag, or a file")
    parser.add_argument("--out", required=True, help="folder of the feature store")
    parser.add_argument(
        "--pool",
        type=int,
        default=1,
        help="average patches over windows of POOL x POOL; 2 for ViT-L/14",
    )
    parser.add_argument(
        "--patch-mode",
        default="plain",
        help="attention of CLIP's last block for the patches: plain (CLIP's own, the default), "
        "maskclip or sclip",
    )
    parser.add_argument(
        "--no-patches",
        action="store_true",
        help="store no patch features, for refinement and for captioners of global features",
    )
    add_feature_arguments(parser)
    parser.add_argument(
        "--caption-template",
        default="{}",
        help="text that CLIP encodes, with {} for the caption (default: the caption alone; the "
        "authors of CLIPScore use 'A photo depicts {}')",
    )
    parser.add_argument(
        "--shard-size", type=int, default=1000, help="images per shard, for image files"
    )
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", help="default: the GPU of this rank, or the CPU")
    parser.add_argument("--workers", type=int, default=4, help="threads that read images")
    args = parser.parse_args()
    from pcm_plugin.synthesis.extract.extract_features import extract_features
    from pcm_plugin.synthesis.extract.open_source import open_source
    from pcm_plugin.synthesis.extract.settings import ExtractSettings

    show_info()
    source = open_source(
        args.source, _captions(args), args.shard_size, args.vocabulary, args.path_template
    )
    settings = ExtractSettings(
        args.model,
        args.pretrained,
        args.pool,
        args.patch_mode,
        args.dtype,
        args.caption_template,
        patches=not args.no_patches,
        clip_score_source=args.clip_scores,
    )
    folder = extract_features(
        source,
        settings,
        args.out,
        args.batch_size,
        args.device,
        args.workers,
        skip_missing=args.skip_missing,
    )
    if Rank.from_environment().index != 0:
        return
    records = folder.shards.values()
    images, captions = (sum(record[key] for record in records) for key in ("count", "captions"))
    print(f"{folder.path}: {images:,} images with {captions:,} captions in {len(records)} shards")
    print_clip_scores(folder)
    print(format_skipped(folder), end="")
