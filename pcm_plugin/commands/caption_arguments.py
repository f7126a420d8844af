"""Command-line arguments that several tools share."""

import argparse
import ast
from pathlib import Path
from typing import Any

from pcm_plugin.formats.captions import FORMATS
from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.captions.report import CaptionReport
from pcm_plugin.formats.shards import ShardFolder

_SHOWN = 20

CAPTION_FORMS = (
    "caption file: COCO captions JSON, Karpathy's JSON, a Flickr token file, CSV/TSV, JSONL, a "
    "JSON list, Parquet, or plain text with one caption per line; the format is detected"
)


_OPTIONS = {"column": "--column", "encoding": "--encoding", "skip_invalid": "--skip-invalid"}


class LiteralKeyValue(argparse.Action):
    """``KEY=VALUE`` pairs: numbers, None, True and lists as Python writes them, all else text.

    MMEngine's DictAction strips the spaces from its values and parts them at commas, which is no
    way to treat a prompt.
    """

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        """Parse the values of one option."""
        found: dict[str, Any] = dict(getattr(namespace, self.dest) or {})
        for pair in values:
            key, equals, value = pair.partition("=")
            if not equals:
                parser.error(f"{option_string} {pair}: give KEY=VALUE, quoted if it has spaces")
            try:
                found[key] = ast.literal_eval(value)
            except (ValueError, SyntaxError, TypeError):
                found[key] = value
            if found[key] in ({}, set()):
                found[key] = value
        setattr(namespace, self.dest, found)


def add_caption_arguments(
    parser: argparse._ActionsContainer,
    option: bool = False,
    help: str = CAPTION_FORMS,
    name: str = "captions",
    default_split: str = "their training split",
    format_option: str = "--format",
) -> None:
    """Add a caption file, as an argument or an option, and how to read it.

    Args:
        parser: Where to add them.
        option: Whether the file is an option, ``--captions``. Defaults to False.
        help: Help of the file.
        name: Name of the argument. Defaults to ``'captions'``.
        default_split: What the help says is read of a file that has splits.
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
        help="column or field that holds the captions, in CSV, TSV, JSONL, JSON lists and "
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
        help="its encoding, by Python's name, such as gb18030 or cp1252 (default: UTF-8, or that "
        "of its byte-order mark)",
    )
    parser.add_argument(
        "--skip-invalid", action="store_true", help="leave out captions that cannot be read"
    )


def open_captions(args: argparse.Namespace, path: str) -> CaptionFile:
    """Return a caption file, to be read as :func:`add_caption_arguments` parsed.

    Raises:
        MissingFileError: If there is no such file.
    """
    return CaptionFile(
        Path(path),
        args.column,
        args.split,
        args.skip_invalid,
        format=args.caption_format,
        encoding=args.encoding,
        options=args.reading_options,
    )


def caption_file(args: argparse.Namespace) -> tuple[CaptionFile, CaptionReport]:
    """Return what :func:`add_caption_arguments` parsed, and the counts of the file.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If it cannot be read or has no captions.
    """
    captions = open_captions(args, args.captions)
    return captions, captions.scan()


def format_skipped(folder: ShardFolder) -> str:
    """What a stage left out, the first of it by name; empty if that is nothing.

    Args:
        folder: A finished folder of the stage.
    """
    records = (item for r in folder.shards.values() for item in r["skipped"].items())
    # Of an image that was tried twice there are two reasons.
    lines = [f"  {k}: {why if isinstance(why, str) else ', then '.join(why)}" for k, why in records]
    if not lines:
        return ""
    more = len(lines) - _SHOWN
    end = [f"  and {more:,} more, all in {folder.path}/manifest.json"] if more > 0 else []
    return "\n".join([f"{len(lines):,} left out:", *lines[:_SHOWN], *end]) + "\n"


def print_clip_scores(folder: ShardFolder) -> None:
    """Print whether a store of annotated images has the annotations' CLIP scores.

    Args:
        folder: A finished feature store.
    """
    settings = folder.manifest["settings"]
    if settings.get("clip_score_source") == "annotation":
        print("CLIP scores: as in the annotations")
    elif "clip_score_source" in settings:
        print(f"CLIP scores: computed with {settings['model']}")
