"""Command-line arguments that several tools share."""

import argparse
import ast
from collections.abc import Sequence
from typing import Any

from pcm_plugin.synthesis.captions import CaptionFile, CaptionReport

_SHOWN = 20

CAPTION_FORMS = (
    "COCO captions JSON, Karpathy's JSON, a Flickr token file, CSV/TSV, JSONL, or plain text with "
    "a caption a line; told apart by content"
)


class KeyValues(argparse.Action):
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
    parser: argparse._ActionsContainer, option: bool = False, help: str = CAPTION_FORMS
) -> None:
    """Add the file of captions, as an argument or an option, and how to read it."""
    parser.add_argument("--captions" if option else "captions", help=help)
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


def caption_file(args: argparse.Namespace) -> tuple[CaptionFile, CaptionReport]:
    """What :func:`add_caption_arguments` parsed, and what was met when it was read once.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read or holds no captions.
    """
    captions = CaptionFile(args.captions, args.column, args.split, args.skip_bad)
    return captions, captions.survey()


def print_some(lines: Sequence[str], where: str) -> None:
    """Print the first lines of what may be many.

    Args:
        lines: What to print, two spaces before each.
        where: What holds them all.
    """
    for line in lines[:_SHOWN]:
        print(f"  {line}")
    if len(lines) > _SHOWN:
        print(f"  and {len(lines) - _SHOWN:,} more, all in {where}")
