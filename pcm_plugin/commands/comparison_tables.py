"""Tables and page of ``pcm compare``."""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcm_plugin.evaluation.scorers import Scores
from pcm_plugin.evaluation.scoring import finite_scores
from pcm_plugin.formats.atomic_io import write_bytes
from pcm_plugin.formats.images.folder import printable
from pcm_plugin.formats.images.image_io import read_image
from pcm_plugin.formats.records import fill_columns, write_records
from pcm_plugin.visualization.comparison import ComparedCaption, ComparedImage, comparison_page

MAX_DRAWN = 200
MAX_SIZE = (640, 640)
# Less known or repeated scores are only written to files.
NOT_SHOWN = ("BLEU-1", "BLEU-2", "BLEU-3", "CIDEr-D")
# The first of these that is computed is shown with each caption of the page.
PER_CAPTION = ("CIDEr", "CLIPScore")


@dataclass
class Outcome:
    """Result of a system.

    Attributes:
        name: Name of the system.
        captions: Caption of each image; empty if the system failed.
        scores: Scores; None if the system failed.
        error: Reason why it failed; empty otherwise.
    """

    name: str
    captions: list[str]
    scores: Scores | None
    error: str = ""


def write_outputs(
    args: argparse.Namespace,
    outcomes: list[Outcome],
    paths: list[str],
    ids: dict[str, int | str],
    references: dict[str, list[str]],
    notes: list[str],
    is_last: bool,
) -> None:
    """Write the files of the command line; after the last system also print the table.

    Args:
        args: Parsed arguments.
        outcomes: Results of the systems so far.
        paths: Image files.
        ids: Their ids.
        references: Their references; empty if there are none.
        notes: Remarks.
        is_last: Whether all systems have finished.
    """
    if args.out:
        write_records(Path(args.out), fill_columns(caption_rows(outcomes, paths, ids)))
    if args.scores:
        write_records(Path(args.scores), fill_columns(score_rows(outcomes, len(paths))))
    if not is_last:
        return
    head, rows = score_table(outcomes)
    print_table(head, rows)
    print("\n".join(notes), flush=True)
    if args.html:
        images = [
            compared_image(path, i, outcomes, references.get(path, []))
            for i, path in enumerate(paths[:MAX_DRAWN])
        ]
        failed = [f"{o.name} failed: {o.error}" for o in outcomes if o.error]
        if len(paths) > MAX_DRAWN:
            notes = [*notes, f"the first {MAX_DRAWN} of {len(paths):,} images are shown"]
        title = f"Comparison of {', '.join(outcome.name for outcome in outcomes)}"
        page = comparison_page(title, [*failed, *notes], head, rows, images)
        write_bytes(Path(args.html), page.encode())


def caption_rows(
    outcomes: list[Outcome], paths: list[str], ids: dict[str, int | str]
) -> list[dict[str, Any]]:
    """Return one row per image and system with the caption and its scores."""
    rows = []
    for i, path in enumerate(paths):
        for outcome in outcomes:
            if outcome.scores is not None:
                each = {name: values[i] for name, values in outcome.scores.each.items()}
                start = {"image_id": ids[path], "image": path, "system": outcome.name}
                caption = {"caption": outcome.captions[i]}
                rows.append({**start, **caption, **finite_scores(each)})
    return rows


def score_rows(outcomes: list[Outcome], num_images: int) -> list[dict[str, Any]]:
    """Return one row per system with its scores, or with the reason why it failed."""
    return [
        {
            "system": outcome.name,
            "images": num_images,
            "error": outcome.error or None,
            **(finite_scores(outcome.scores.total) if outcome.scores else {}),
        }
        for outcome in outcomes
    ]


def score_table(outcomes: list[Outcome]) -> tuple[list[str], list[list[str | float]]]:
    """Return column names and rows of the table of scores."""
    names = dict.fromkeys(
        name for outcome in outcomes if outcome.scores for name in outcome.scores.total
    )
    shown = [name for name in names if name not in NOT_SHOWN]
    rows: list[list[str | float]] = []
    for outcome in outcomes:
        total = outcome.scores.total if outcome.scores else {}
        values = [total.get(name, math.nan) for name in shown]
        missing = "failed" if outcome.error else "n/a"
        rows.append([outcome.name, *(missing if math.isnan(x) else x for x in values)])
    return ["system", *shown], rows


def print_table(head: list[str], rows: list[list[str | float]]) -> None:
    """Print the table of scores."""
    cells = [[x if isinstance(x, str) else f"{x:.2f}" for x in row] for row in rows]
    texts = [head, *cells]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for first, *others in texts:
        aligned = [x.rjust(width) for x, width in zip(others, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *aligned]))


def compared_image(
    path: str, index: int, outcomes: list[Outcome], references: list[str]
) -> ComparedImage:
    """Return an image of the page with the captions of all systems that did not fail."""
    image = read_image(path)
    image.thumbnail(MAX_SIZE)
    captions = [
        ComparedCaption(outcome.name, outcome.captions[index], caption_score(outcome.scores, index))
        for outcome in outcomes
        if outcome.scores is not None
    ]
    return ComparedImage(image, printable(Path(path).name), references, captions)


def caption_score(scores: Scores, index: int) -> str:
    """Return the score that the page shows with a caption."""
    for name in PER_CAPTION:
        if name in scores.each and not math.isnan(scores.each[name][index]):
            return f"{name} {scores.each[name][index]:.1f}"
    return ""
