r"""Compare a captioner with models of transformers.

pcm compare pcm-net_toy --with Salesforce/blip-image-captioning-base --images photos/
pcm compare captioner.safetensors --images photos/ --references refs.json --html page.html \
    --with microsoft/git-base-coco HuggingFaceTB/SmolVLM-256M-Instruct other_captions.json \
    --prompt HuggingFaceTB/SmolVLM-256M-Instruct "Describe the image in one short sentence."

Captions the same images with each system and prints a table of their scores. --with takes
image-to-text models of transformers (a local folder, or a name on the Hugging Face Hub), which are
loaded without running code from their folder, and COCO results files (.json), as written by
pcm caption --out.

Without --references, the scores are CLIPScore, the number of different captions and of different
words, and the mean length. CLIPScore is computed with the CLIP of the captioner, which favors
captioners that use the same CLIP; --clip-model chooses another one.

If a system fails, the others are still compared, and the exit code is 1.
"""

import argparse
from pathlib import Path

from pcm_plugin.commands.argument_types import positive_integer
from pcm_plugin.commands.caption_arguments import add_caption_arguments
from pcm_plugin.commands.garbage_collection import paused_garbage_collection
from pcm_plugin.errors import UserError, plain_errors
from pcm_plugin.evaluation.names import ALL_SCORERS, DEFAULT_SCORERS
from pcm_plugin.formats.languages import check_language
from pcm_plugin.formats.records import check_records_file

WITHOUT_REFERENCES = ("CLIPScore", "diversity")
DTYPES = ("float32", "float16", "bfloat16")


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "weights", help="file of `pcm export` or name of a model; a checkpoint with --config"
    )
    parser.add_argument("--config", help="config of a checkpoint: file, or name such as pcm_coco")
    parser.add_argument(
        "--with",
        dest="others",
        nargs="+",
        action="extend",
        required=True,
        metavar="MODEL",
        help="image-to-text models of transformers (folder or name), COCO results files (.json)",
    )
    parser.add_argument(
        "--prompt",
        dest="prompts",
        nargs=2,
        action="append",
        default=[],
        metavar=("MODEL", "TEXT"),
        help="prompt of a model of --with; most models need one",
    )
    parser.add_argument(
        "--images", nargs="+", required=True, help="image files, or folders of images"
    )
    parser.add_argument("--device", help="device, e.g. cuda:0 (default: a GPU if available)")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="precision of the models of transformers (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size", type=positive_integer, default=8, help="batch size (default: %(default)s)"
    )
    parser.add_argument(
        "--beam-size",
        type=positive_integer,
        help="number of beams of all systems (default: the setting of each)",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=positive_integer,
        default=50,
        help="maximum number of tokens of a caption of a model of transformers (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--rerank", choices=("sum", "ranks"), help="re-ranking of the captioner, as pcm caption"
    )
    parser.add_argument(
        "--rerank-weight", type=float, help="weight of re-ranking of the captioner, as pcm caption"
    )
    references = parser.add_argument_group("references and scores")
    add_caption_arguments(
        references,
        option=True,
        name="references",
        help="caption file with references for all images",
        default_split="test",
    )
    references.add_argument(
        "--scorers",
        nargs="+",
        choices=ALL_SCORERS,
        help=f"metrics to compute (default: {' '.join((*DEFAULT_SCORERS, *WITHOUT_REFERENCES))}; "
        f"without --references: {' '.join(WITHOUT_REFERENCES)})",
    )
    references.add_argument(
        "--language",
        default="en",
        metavar="CODE",
        help="language of the captions, which decides how they are tokenized, as pcm score "
        "(default: %(default)s)",
    )
    references.add_argument(
        "--clip-model", help="open_clip model for CLIPScore (default: the CLIP of the captioner)"
    )
    references.add_argument(
        "--clip-pretrained",
        help="weights of --clip-model: a tag of open_clip or a file",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--out",
        help="table of all captions with the scores of each (.csv, .json, .jsonl); written again "
        "after each system",
    )
    output.add_argument("--scores", help="table of the scores (.csv, .json, .jsonl)")
    output.add_argument(
        "--captions",
        metavar="FOLDER",
        help="folder for a COCO results file of each system, for pcm score and --with; each is "
        "written when the system has finished",
    )
    output.add_argument(
        "--html", help="web page with the scores and the first 200 images with their captions"
    )
    return parser.parse_args()


def check_args(args: argparse.Namespace) -> None:
    """Check the arguments that need no model, and set the default of ``--scorers``.

    Raises:
        UserError: If they are invalid or contradict each other.
    """
    for name in (args.out, args.scores):
        if name:
            check_records_file(Path(name))
    if args.html and Path(args.html).is_dir():
        raise UserError(f"--html must be a file name, got the folder {args.html}")
    if args.captions and Path(args.captions).is_file():
        raise UserError(f"--captions must be a folder, got the file {args.captions}")
    if args.scorers is None:
        with_references = (*DEFAULT_SCORERS, *WITHOUT_REFERENCES)
        args.scorers = list(with_references if args.references else WITHOUT_REFERENCES)
    needing = [name for name in args.scorers if name not in WITHOUT_REFERENCES]
    if needing and not args.references:
        raise UserError(f"--scorers {' '.join(needing)} needs --references FILE")
    check_language(args.language)
    if args.clip_pretrained and not args.clip_model:
        raise UserError(f"--clip-pretrained {args.clip_pretrained} needs --clip-model NAME")
    if args.clip_model and "CLIPScore" not in args.scorers:
        raise UserError(f"--clip-model {args.clip_model} needs --scorers CLIPScore")
    seen: set[str] = set()
    for model, _ in args.prompts:
        if model not in args.others:
            raise UserError(
                f"--prompt {model} must name a model of --with: {', '.join(args.others)}"
            )
        if model.endswith(".json"):
            raise UserError(f"--prompt {model} has no effect: the captions of a file are fixed")
        if model in seen:
            raise UserError(f"--prompt {model} is given twice: pass one prompt per model")
        seen.add(model)


@plain_errors()
def main() -> None:
    """Run the command."""
    args = parse_args()
    check_args(args)
    from pcm_plugin.commands.captioning import find_images

    ids = find_images(args.images)
    with paused_garbage_collection():
        from pcm_plugin.commands.comparing import compare
    problems = compare(args, ids)
    if problems:
        raise UserError("; ".join(problems))
