"""Command-line arguments and reports that several commands share."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pcm_plugin.formats.captions import FORMATS
from pcm_plugin.synthesis.extract.annotation_scores import CLIP_SCORE_SOURCES

if TYPE_CHECKING:
    from pcm_plugin.formats.captions.caption_file import CaptionFile
    from pcm_plugin.formats.captions.report import CaptionReport
    from pcm_plugin.formats.shards import ShardFolder

_SHOWN = 20

CAPTION_FORMATS = (
    "caption file: COCO captions JSON, Karpathy's JSON, a Flickr token file, CSV/TSV, JSONL, a "
    "JSON list, Parquet, or plain text with one caption per line; the format is detected"
)


_OPTIONS = {"column": "--column", "encoding": "--encoding", "skip_invalid": "--skip-invalid"}


def add_caption_arguments(
    parser: argparse._ActionsContainer,
    option: bool = False,
    help: str = CAPTION_FORMATS,
    name: str = "captions",
    default_split: str = "their training split",
    format_option: str = "--format",
) -> None:
    """Add the arguments for a caption file and how to read it.

    Args:
        parser: Parser or group of arguments.
        option: Whether the file is an option, ``--captions``, instead of a positional argument.
            Defaults to False.
        help: Help of the file.
        name: Name of the argument. Defaults to ``'captions'``.
        default_split: Description, in the help, of the split that is read by default.
        format_option: Name of the option for the file's format. Defaults to ``'--format'``.
    """
    parser.add_argument(f"--{name}" if option else name, help=help)
    parser.add_argument(
        "--split",
        help=f"train, val, test or all, for files with splits (default: {default_split})",
    )
    parser.add_argument(
        "--column",
        default="caption",
        help="column or field of the captions, in CSV, TSV, JSONL, JSON lists and "
        "Parquet (default: %(default)s)",
    )
    parser.add_argument(
        format_option,
        dest="caption_format",
        choices=FORMATS,
        help="format of the caption file (default: detected)",
    )
    parser.set_defaults(reading_options=_OPTIONS | {"format": format_option})
    parser.add_argument(
        "--encoding",
        metavar="NAME",
        help="encoding of the caption file, by Python's name, such as gb18030 or cp1252 (default: "
        "UTF-8, or that of its byte-order mark)",
    )
    parser.add_argument(
        "--skip-invalid", action="store_true", help="skip captions that cannot be read"
    )


def add_feature_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that write a feature store from images with annotations."""
    parser.add_argument(
        "--clip-scores",
        default="auto",
        choices=CLIP_SCORE_SOURCES,
        help="if annotations have CLIP scores: keep them, compute new ones with --model, or "
        "compare the first ones and keep them if they agree (default: auto)",
    )
    parser.add_argument("--dtype", default="float16", choices=["float16", "bfloat16", "float32"])


def open_captions(args: argparse.Namespace, path: str) -> "CaptionFile":
    """Return a caption file that is read with the parsed arguments.

    Raises:
        MissingFileError: If the file does not exist.
    """
    from pcm_plugin.formats.captions.caption_file import CaptionFile

    return CaptionFile(
        Path(path),
        args.column,
        args.split,
        args.skip_invalid,
        format=args.caption_format,
        encoding=args.encoding,
        options=args.reading_options,
    )


def caption_file(args: argparse.Namespace) -> "tuple[CaptionFile, CaptionReport]":
    """Return the parsed caption file and its counts.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If it cannot be read or has no captions.
    """
    captions = open_captions(args, args.captions)
    return captions, captions.scan()


def format_skipped(folder: "ShardFolder") -> str:
    """Return the list of samples that a stage skipped, with reasons; empty if there are none.

    Args:
        folder: Finished folder of the stage.
    """
    records = (item for r in folder.shards.values() for item in r["skipped"].items())
    # An image that was generated twice has two reasons.
    lines = [f"  {k}: {why if isinstance(why, str) else ', then '.join(why)}" for k, why in records]
    if not lines:
        return ""
    more = len(lines) - _SHOWN
    end = [f"  and {more:,} more, all in {folder.path}/manifest.json"] if more > 0 else []
    return "\n".join([f"{len(lines):,} skipped:", *lines[:_SHOWN], *end]) + "\n"


def print_clip_scores(folder: "ShardFolder") -> None:
    """Print whether the CLIP scores of a store are those of annotations or computed.

    Args:
        folder: Finished feature store.
    """
    settings = folder.manifest["settings"]
    if settings.get("clip_score_source") == "annotation":
        print("CLIP scores: as in the annotations")
    elif "clip_score_source" in settings:
        print(f"CLIP scores: computed with {settings['model']}")
