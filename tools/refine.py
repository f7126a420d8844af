"""Choose which caption goes with which synthetic image: SynC, or a filter by CLIP score.

    python tools/refine.py STORE --out FOLDER
    python tools/refine.py STORE --method filter --min-clip-score 0.6 --out FOLDER
    torchrun --nproc_per_node 8 tools/refine.py STORE --out FOLDER

Train on the chosen pairs with train_dataloader.dataset.pairs=FOLDER/pairs.safetensors.
"""

import argparse

from pcm_plugin.datasets.feature_store import FeatureStore
from pcm_plugin.plain_errors import plain_errors
from pcm_plugin.synthesis.ranks import Rank
from pcm_plugin.synthesis.refine import PAIRS, RefineSettings, refine


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", help="folder of tools/extract.py")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--method", default="sync", choices=["sync", "filter"])
    parser.add_argument("--num-images", type=int, default=15, help="looked at for a caption")
    parser.add_argument("--num-captions", type=int, default=2, help="looked at for an image")
    parser.add_argument(
        "--keep",
        type=float,
        help="share of the pairs, best first (default: 0.9, or all with --min-clip-score)",
    )
    parser.add_argument("--min-clip-score", type=float, help="drop pairs below (2.5 cosine)")
    parser.add_argument(
        "--sentence-feats",
        help="safetensors with sentence_feats, a row a caption (default: CLIP's text features)",
    )
    parser.add_argument("--chunk", type=int, default=8192, help="images or captions at a time")
    parser.add_argument("--device", help="default: the GPU of this rank, else the CPU")
    args = parser.parse_args()
    settings = RefineSettings(
        args.method, args.num_images, args.num_captions, args.keep, args.min_clip_score
    )
    pairs = refine(args.store, settings, args.out, args.sentence_feats, args.chunk, args.device)
    if Rank.from_environment().index != 0:
        return
    store = FeatureStore(args.store)
    moved = int((store.owners(pairs.caption) != pairs.image).sum())
    before = store.clip_scores
    print(
        f"{args.out}/{PAIRS}: {len(pairs.caption):,} of {len(before):,} pairs, {moved:,} captions "
        f"with another image; mean CLIP score {before.mean():.3f} -> {pairs.clip_score.mean():.3f}"
    )


if __name__ == "__main__":
    with plain_errors():
        main()
