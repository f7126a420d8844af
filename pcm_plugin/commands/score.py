"""Score predicted captions against references.

pcm score captions.json captions_val2014.json
pcm score captions.json dataset_coco.json --split test --scorers BLEU CIDEr METEOR
pcm score captions.json refs.json --scorers CLIPScore --images val2014 \
    --model ViT-B-32-quickgelu --pretrained openai
pcm score captions.json nocaps_val.json --groups nocaps_val.json

The predictions are a COCO results file, [{"image_id": 7, "caption": "a dog"}, ...], as written by
pcm caption --out and pcm convert-captions --results. The references are a caption file
that names images: COCO captions JSON, Karpathy's JSON, a Flickr token file, a table or JSONL.
Images are matched by id, file name or number: 42, "000000000042.jpg" and
"val2014/COCO_val2014_000000000042.jpg" are the same image.

As in the COCO evaluation, each prediction needs references, and each image with references needs a
prediction. With --partial, the images in both files are scored.
"""

import argparse
import math
from pathlib import Path
from typing import Any

from pcm_plugin.commands.caption_arguments import add_caption_arguments
from pcm_plugin.commands.garbage_collection import paused_garbage_collection
from pcm_plugin.errors import plain_errors
from pcm_plugin.evaluation.names import ALL_SCORERS, DEFAULT_SCORERS, TOKENIZERS


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("predictions", help="predictions: COCO results file")
    add_caption_arguments(
        parser, name="references", help="caption file with the references", default_split="test"
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="score the images that have both a prediction and references, and ignore the others",
    )
    parser.add_argument(
        "--scorers",
        nargs="+",
        choices=ALL_SCORERS,
        default=list(DEFAULT_SCORERS),
        help=f"metrics to compute (default: {' '.join(DEFAULT_SCORERS)})",
    )
    parser.add_argument(
        "--tokenizer",
        choices=TOKENIZERS,
        default="ptb",
        help="tokenizer of English predictions and references (default: %(default)s)",
    )
    parser.add_argument(
        "--language",
        default="en",
        metavar="CODE",
        help="language of the captions, such as tr; the tokens of zh and ja are characters "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--train-captions", help="caption file of the training set, for the diversity score `novel`"
    )
    parser.add_argument("--images", help="folder of the images, for CLIPScore")
    parser.add_argument("--model", help="open_clip model, for CLIPScore")
    parser.add_argument(
        "--pretrained", help="weights of the open_clip model: a tag of open_clip or a file"
    )
    parser.add_argument("--per-image", help="JSON file to write the scores of each image to")
    parser.add_argument(
        "--groups",
        metavar="FILE",
        help="COCO captions JSON that assigns images to groups, each of which is also scored alone",
    )
    parser.add_argument(
        "--group-field",
        default="domain",
        help="field of the images in --groups with the name of the group (default: %(default)s, as "
        "in NoCaps)",
    )
    parser.add_argument("--out", help="JSON file to write the scores to")
    args = parser.parse_args()
    needs_clip = "CLIPScore" in args.scorers
    if needs_clip and not (args.images and args.model):
        parser.error("CLIPScore needs --images FOLDER and --model NAME")
    if not needs_clip and (args.images or args.model or args.pretrained):
        parser.error("--images, --model and --pretrained need --scorers CLIPScore")
    return args


@plain_errors()
def main() -> None:
    """Run the command."""
    args = parse_args()
    with paused_garbage_collection():
        from pcm_plugin.commands.scoring import score

    scores, tokens, remarks = score(args)
    if args.out:
        about: dict[str, Any] = {"remarks": remarks} if remarks else {}
        about |= {"tokens": tokens} if tokens else {}
        from pcm_plugin.evaluation.scoring import finite_scores
        from pcm_plugin.formats.atomic_io import write_json

        write_json(Path(args.out), {**finite_scores(scores), **about})
    width = max(15, *map(len, scores))
    cells = ["n/a" if math.isnan(value) else f"{value:.4f}" for value in scores.values()]
    lines = (f"{name:{width}}{cell:>10}" for name, cell in zip(scores, cells, strict=True))
    if tokens:
        print(f"tokens: {tokens}")
    print("\n".join(lines), flush=True)
