"""Refine pairs of captions and synthetic images, or image features.

Choose which caption belongs to which image, with SynC or a filter by CLIP score:

    pcm refine STORE --out FOLDER
    pcm refine STORE --method filter --min-clip-score 0.6 --out FOLDER
    pcm refine STORE --method filter --pairs-per-caption 1 --keep 1 --out FOLDER
    torchrun --nproc_per_node 8 -m pcm_plugin refine STORE --out FOLDER

SynC as released for PCM-Net: SigLIP 2 assigns captions to images, a sentence encoder compares
captions, and the pairs are written for the training store of CLIP features:

    pcm refine CLIP_STORE --assign-store SIGLIP2_STORE --score-scale 5 --out FOLDER \
        --sentence-encoder sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2

Train on the pairs with train_dataloader.dataset.pairs=FOLDER/pairs.safetensors.

Assign captions to your own photos, which need no captions, and to the generated images:

    pcm extract PHOTOS --captions none --model MODEL --out PHOTO_STORE
    pcm refine STORE --pool PHOTO_STORE --out FOLDER
    pcm refine STORE --pool PHOTO_STORE --pool-images photos --out FOLDER

Train on these pairs with train_dataloader.dataset.store=FOLDER/store in addition. If captions of
STORE are held out for validation, pass --among validation/train_pairs.safetensors of the data set.

Move the global features of images toward their captions and away from others; this reconstructs
SynTIC (configs/syntic/syntic_coco.py trains on them).

    pcm refine STORE --method contrast --out FOLDER
"""

import argparse
from typing import TYPE_CHECKING, Any

from pcm_plugin.errors import plain_errors
from pcm_plugin.synthesis.ranks import Rank
from pcm_plugin.synthesis.refine.settings import (
    POOL_IMAGES,
    POOLINGS,
    ContrastSettings,
    RefineSettings,
)

if TYPE_CHECKING:
    from torch import Tensor

    from pcm_plugin.formats.pair_selection import PairSelection

CONTRAST = {
    "steps": "gradient steps",
    "step_size": "length of a step",
    "temperature": "temperature of the softmax, the inverse of CLIP's logit scale",
    "negatives": "number of captions that are negatives for all images",
    "seed": "seed of their choice",
}
FILTER = {"keep", "min_clip_score", "pairs_per_caption", "score_scale", "assign_store", "among"}
SYNC = FILTER | {
    *("pool", "pool_images", "num_images", "num_captions"),
    *("sentence_feats", "sentence_encoder", "pooling"),
}
OPTIONS = {"sync": SYNC, "filter": FILTER, "contrast": {*CONTRAST, "among"}}
SHARED = {"store", "out", "method", "chunk", "device"}


@plain_errors()
def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", help="folder of `pcm extract`")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--method", default="sync", choices=list(OPTIONS))
    parser.add_argument("--chunk", type=int, default=8192, help="images or captions per chunk")
    parser.add_argument("--device", help="default: the GPU of this rank, or the CPU")
    parser.add_argument(
        "--among",
        metavar="PAIRS",
        help="file of pairs: assign only their captions and images to each other, or with --method "
        "contrast choose negatives from their captions only, such as those that are not held out "
        "for validation",
    )
    pairs = parser.add_argument_group("--method sync and filter")
    pairs.add_argument(
        "--assign-store",
        help="store of another model over the same images, which is used for the assignment",
    )
    pairs.add_argument(
        "--pool",
        help="SynC: store of photos without captions, of the same CLIP, to which captions may be "
        "assigned",
    )
    pairs.add_argument(
        "--pool-images",
        choices=POOL_IMAGES,
        help="with --pool: assign captions to the photos and the images of STORE (all, the "
        "default), or to the photos alone",
    )
    pairs.add_argument("--num-images", type=int, help="candidates per caption (default: 15)")
    pairs.add_argument(
        "--num-captions", type=int, help="captions that a candidate retrieves (default: 2)"
    )
    pairs.add_argument(
        "--keep",
        type=float,
        help="share of the pairs to keep, best first (default: 0.9, or all with --min-clip-score)",
    )
    pairs.add_argument("--min-clip-score", type=float, help="drop pairs with a lower CLIP score")
    pairs.add_argument(
        "--pairs-per-caption",
        type=int,
        help="keep at most this many pairs of captions with the same text, best first: 1 takes the "
        "best of several images per caption (default: all)",
    )
    pairs.add_argument(
        "--sentence-encoder",
        help="folder, or name on the hub, of the sentence encoder that compares captions (default: "
        "compare the caption features of the assigning store)",
    )
    pairs.add_argument(
        "--pooling",
        choices=POOLINGS,
        help="pooling of tokens, if the folder of the encoder does not specify it",
    )
    pairs.add_argument(
        "--sentence-feats",
        help="safetensors file with sentence_feats, one row per caption of STORE, in place of a "
        "sentence encoder",
    )
    pairs.add_argument(
        "--score-scale",
        type=float,
        help="clip_score of a pair: this many times the cosine in the assigning store; SynC: 5 "
        "(default: 2.5 times the cosine in STORE)",
    )
    contrast = parser.add_argument_group("--method contrast")
    defaults = ContrastSettings()
    for name, text in CONTRAST.items():
        value = getattr(defaults, name)
        option = f"--{name.replace('_', '-')}"
        contrast.add_argument(option, type=type(value), help=f"{text} (default: {value})")
    args = parser.parse_args()
    options = {k: v for k, v in vars(args).items() if v is not None and k not in SHARED}
    unused = [f"--{name.replace('_', '-')}" for name in options if name not in OPTIONS[args.method]]
    if unused:
        parser.error(f"--method {args.method} has no {', '.join(unused)}")

    from pcm_plugin.formats.feature_store import FeatureStore
    from pcm_plugin.synthesis.refine.assignment import Among
    from pcm_plugin.synthesis.refine.features import refine_features
    from pcm_plugin.synthesis.refine.pairs import refine_pairs

    among = options.pop("among", None)
    if among is not None:
        among = Among.of_pairs(FeatureStore(args.store), among)
    if args.method == "contrast":
        settings = ContrastSettings(**options)
        feats = refine_features(
            args.store, settings, args.out, args.chunk, args.device, among=among
        )
        if Rank.from_environment().index == 0:
            print_features(args, feats)
        return
    sentences, assigning = options.pop("sentence_feats", None), options.pop("assign_store", None)
    photos, pool_images = options.pop("pool", None), options.pop("pool_images", None)
    if pool_images is not None and photos is None:
        parser.error("--pool-images has no effect without --pool")
    chosen = RefineSettings(args.method, **options)
    inputs: dict[str, Any] = {"sentence_feats": sentences, "chunk": args.chunk}
    inputs |= {"device": args.device, "assign_store": assigning, "among": among}
    if photos is None:
        found = refine_pairs(args.store, chosen, args.out, **inputs)
    else:
        from pcm_plugin.synthesis.pipeline.photo_pool import POOL_STORE, refine_with_pool

        pool_images = pool_images or POOL_IMAGES[0]
        found = refine_with_pool(args.store, photos, chosen, args.out, pool_images, **inputs)
        args.store = f"{args.out}/{POOL_STORE}"
    if Rank.from_environment().index == 0:
        print_pairs(args, found)
        if photos is not None:
            print_photos(args.store, photos, found)


def print_pairs(args: argparse.Namespace, pairs: "PairSelection") -> None:
    """Print the number of pairs and their mean score."""
    from pcm_plugin.formats.feature_store import FeatureStore
    from pcm_plugin.formats.pair_selection import PAIRS_FILE

    store = FeatureStore(args.store)
    moved = int((store.caption_to_image(pairs.caption) != pairs.image).sum())
    before = store.clip_scores
    score = f"mean CLIP score {before.mean():.3f} -> {pairs.clip_score.mean():.3f}"
    if args.score_scale is not None:
        score = f"mean score {pairs.clip_score.mean():.3f} ({args.score_scale:g} x cosine)"
    print(
        f"{args.out}/{PAIRS_FILE}: {len(pairs.caption):,} of {len(before):,} pairs, {moved:,} "
        f"captions with another image; {score}"
    )


def print_photos(store: str, photos: str, pairs: "PairSelection") -> None:
    """Print how many pairs have a photo, and how many photos are used."""
    from pcm_plugin.formats.feature_store import FeatureStore

    count = len(FeatureStore(photos))
    assigned = pairs.image[pairs.image >= len(FeatureStore(store)) - count]
    print(
        f"{len(assigned):,} of these pairs have a photo ({len(set(assigned.tolist())):,} of "
        f"{count:,} photos); train with train_dataloader.dataset.store={store} too"
    )


def print_features(args: argparse.Namespace, feats: "Tensor") -> None:
    """Print how far the features moved and the mean score of the pairs."""
    import numpy as np
    import torch

    from pcm_plugin.formats.feature_store import FeatureStore
    from pcm_plugin.formats.refined_features import FEATURES_FILE
    from pcm_plugin.synthesis.extract.clip_features import CLIP_SCORE_SCALE

    store = FeatureStore(args.store)
    moved, scores = [], []
    for start in range(0, len(feats), args.chunk):
        captions = np.arange(start, min(start + args.chunk, len(feats)))
        refined = feats[start : start + args.chunk].float()
        moved.append(
            (refined * store.read_rows("global_feats", store.caption_to_image(captions))).sum(1)
        )
        scores.append(
            CLIP_SCORE_SCALE * (refined * store.read_rows("caption_feats", captions)).sum(1)
        )
    print(
        f"{args.out}/{FEATURES_FILE}: {len(feats):,} features, cosine with the old ones "
        f"{torch.cat(moved).mean():.3f}; mean CLIP score {store.clip_scores.mean():.3f} -> "
        f"{torch.cat(scores).mean():.3f}"
    )
