"""Command-line arguments that several tools share."""

import argparse

from pcm_plugin.synthesis.captions import CaptionFile, CaptionReport

CAPTION_FORMS = (
    "COCO captions JSON, Karpathy's JSON, a Flickr token file, CSV/TSV, JSONL, or plain text with "
    "a caption a line; told apart by content"
)


def add_caption_arguments(parser: argparse._ActionsContainer, option: bool = False) -> None:
    """Add the file of captions, as an argument or an option, and how to read it."""
    parser.add_argument("--captions" if option else "captions", help=CAPTION_FORMS)
    parser.add_argument(
        "--column", default="caption", help="what holds the captions in CSV, TSV and JSONL"
    )
    parser.add_argument(
        "--split",
        help="train, val or test, for files that know splits (default: their training split)",
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="pass over captions that cannot be read"
    )


def caption_file(
    args: argparse.Namespace, quiet: bool = False
) -> tuple[CaptionFile, CaptionReport]:
    """What :func:`add_caption_arguments` parsed, read once and counted; says what was met.

    Args:
        args: The command line.
        quiet: Whether to say nothing, as all but one of several processes should.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read or holds no captions.
    """
    captions = CaptionFile(args.captions, args.column, args.split, args.skip_bad)
    report = captions.survey()
    if not quiet:
        print(report, flush=True)
    return captions, report
