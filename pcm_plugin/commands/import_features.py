"""Import released features (.npz) and annotations (a pickle).

    pcm import-features FEATURES ANNOTATIONS.pkl --vocabulary vocabulary.txt \
        --model ViT-B-32-quickgelu --pretrained openai --out STORE

The pickle is read without executing anything in it. --model is the CLIP that made the features; its
head and the caption features, which were not released, are computed.
"""

import argparse

from pcm_plugin.commands.caption_arguments import (
    add_feature_arguments,
    format_skipped,
    print_clip_scores,
)
from pcm_plugin.commands.logs import show_info
from pcm_plugin.errors import plain_errors
from pcm_plugin.synthesis.ranks import Rank


@plain_errors()
def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("features", help="folder of the .npz files")
    parser.add_argument("annotations", help="annotation pickle")
    parser.add_argument(
        "--vocabulary", required=True, help="vocabulary.txt that was released with it"
    )
    parser.add_argument("--model", required=True, help="open_clip name, or local-dir:FOLDER")
    parser.add_argument("--pretrained", help="its weights: open_clip's tag, or a file")
    parser.add_argument("--out", required=True, help="folder of the feature store")
    parser.add_argument(
        "--path-template",
        help="path of an image's file (default: as in the released code, "
        "img_sp{split_id}/{image_id}.npz, or img/{image_id}.npz if the annotations have no "
        "split_id)",
    )
    parser.add_argument(
        "--skip-missing", action="store_true", help="skip images whose file is missing"
    )
    add_feature_arguments(parser)
    parser.add_argument("--shard-size", type=int, default=1000, help="images per shard")
    parser.add_argument("--device", help="default: the GPU of this rank, or the CPU")
    parser.add_argument("--workers", type=int, default=4, help="threads that read files")
    args = parser.parse_args()
    from pcm_plugin.formats.released_annotations import read_released_annotations
    from pcm_plugin.formats.vocabulary import Vocabulary
    from pcm_plugin.synthesis.released.features import ImportSettings, import_features

    show_info()
    pairs = read_released_annotations(args.annotations, Vocabulary.from_file(args.vocabulary))
    settings = ImportSettings(
        args.model,
        args.pretrained,
        args.path_template,
        args.dtype,
        args.shard_size,
        args.clip_scores,
    )
    folder = import_features(
        args.features,
        pairs,
        settings,
        args.out,
        args.device,
        args.workers,
        skip_missing=args.skip_missing,
    )
    if Rank.from_environment().index != 0:
        return
    records = folder.shards.values()
    print(f"{folder.path}: {sum(r['count'] for r in records):,} images in {len(records)} shards")
    print_clip_scores(folder)
    print(format_skipped(folder), end="")
