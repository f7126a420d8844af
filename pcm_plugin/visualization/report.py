"""What a training left behind, as one page."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.visualization import charts
from pcm_plugin.visualization.page import cards, escape, image_card, page, table
from pcm_plugin.visualization.sheet import SheetEntry

GREY = "#9aa3af"


class Scored(NamedTuple):
    """An image of the test set and what its caption scored.

    Attributes:
        entry: Image, caption, references, concepts and mixed patches.
        cider: CIDEr of this image, times 100; NaN where it is undefined.
    """

    entry: SheetEntry
    cider: float


class Pair(NamedTuple):
    """A pair of the training set.

    Attributes:
        image: The synthetic image.
        caption: Its caption.
        score: CLIP score, 2.5 * cosine.
    """

    image: Image.Image
    caption: str
    score: float


class Run(NamedTuple):
    """A run's work folder, read.

    Attributes:
        train: What was logged in training, by step.
        scores: Validation scores, by epoch.
        tests: Scores of ``tools/test.py``, by the folder that they are in; None where one is
            undefined.
    """

    train: list[dict[str, float]]
    scores: list[dict[str, float]]
    tests: dict[str, dict[str, float | None]]


def read_run(work_dir: Path) -> Run:
    """Read what MMEngine logged in a work folder, of all the times the run was taken up.

    Args:
        work_dir: The folder, with ``TIMESTAMP/vis_data/scalars.json`` in it.

    Raises:
        MissingFileError: If there are no such files.
        UserError: If a file of scores is damaged.
    """
    files = sorted(work_dir.glob("*/vis_data/scalars.json"))
    if not files:
        raise MissingFileError(
            f"{work_dir} holds no training: there is no TIMESTAMP/vis_data/scalars.json in it"
        )
    train: dict[float, dict[str, float]] = {}
    scores: dict[float, dict[str, float]] = {}
    for file in files:
        for row in _rows(file):
            step = row.get("step", 0)
            # A resumed run logs steps again that were not saved before: the later ones stand.
            (train if "loss" in row else scores)[step] = row
    tests = {}
    for file in sorted(work_dir.rglob("metrics.json")):
        try:
            metrics = json.loads(file.read_text())["metrics"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{file} holds no scores: test again, or remove it") from None
        tests[str(file.parent.relative_to(work_dir))] = metrics
    return Run([train[s] for s in sorted(train)], [scores[s] for s in sorted(scores)], tests)


def report_page(
    title: str,
    run: Run,
    config: str,
    grid: tuple[int, int],
    best: str,
    samples: Sequence[Scored] = (),
    clip_scores: np.ndarray | None = None,
    low: Sequence[Pair] = (),
    high: Sequence[Pair] = (),
    notes: Sequence[str] = (),
) -> str:
    """The page of a run.

    Args:
        title: Its title.
        run: What was logged.
        config: The config as text.
        grid: Rows and columns of the patches.
        best: Name of the checkpoint that captioned the samples.
        samples: Images of the test set, best first.
        clip_scores: (P,) CLIP scores of the training pairs.
        low: PairSelection from the low end.
        high: PairSelection from the high end.
        notes: What could not be shown, and why.

    Returns:
        HTML, one file that needs no other.
    """
    parts = [("", "".join(f'<p class="note">{escape(note)}</p>' for note in notes))]
    parts.append(("Scores", _score_table(run, best)))
    drawn = [_loss_chart(run)] if run.train else []
    if run.scores:
        drawn.append(_score_chart(run))
    if clip_scores is not None:
        marks = {"median": float(np.median(clip_scores))}
        drawn.append(charts.histogram(clip_scores, "CLIP score (2.5 cos)", "training pairs", marks))
    parts.append(("Curves", f'<div class="charts">{"".join(drawn)}</div>'))
    for heading, chosen in _thirds(samples):
        shown = (image_card(s.entry, grid, _cider(s.cider)) for s in chosen)
        parts.append((heading, cards(shown)))
    for heading, pairs in (("Pairs from the low end", low), ("Pairs from the high end", high)):
        if pairs:
            entries = [
                SheetEntry(p.image, p.caption, title=f"CLIP score {p.score:.3f}") for p in pairs
            ]
            parts.append((heading, cards(image_card(entry, grid) for entry in entries)))
    parts.append(("Config", f"<pre>{escape(config)}</pre>"))
    return page(title, parts)


def choose_samples(ciders: Sequence[float], count: int) -> list[int]:
    """The best, the median and the worst: up to ``count`` of each, by falling score.

    Args:
        ciders: Score of each image.
        count: How many of each.

    Returns:
        Their numbers: the best first, then those around the median, then the worst.
    """
    order = sorted(range(len(ciders)), key=lambda i: -ciders[i])
    if len(order) <= 3 * count:
        return order
    middle = (len(order) - count) // 2
    return [*order[:count], *order[middle : middle + count], *order[-count:]]


def _thirds(samples: Sequence[Scored]) -> Iterator[tuple[str, Sequence[Scored]]]:
    count = -(-len(samples) // 3)
    names = ("Best captions by CIDEr", "Captions around the median", "Worst captions")
    for place, name in enumerate(names):
        own = samples[place * count : (place + 1) * count]
        if own:
            yield name, own


def _rows(file: Path) -> Iterator[dict[str, float]]:
    for line in file.read_text().splitlines():
        # A run that was killed leaves half a line.
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def _score_table(run: Run, best: str) -> str:
    rows: dict[str, Mapping[str, float | None]] = dict(run.tests)
    epoch = _epoch_of(best)
    on_validation = [row for row in run.scores if row.get("step") == epoch]
    if on_validation:
        unit = "iteration" if "_iter_" in f"_{best}" else "epoch"
        rows = {f"validation, {unit} {epoch}": on_validation[0]} | rows
    names: list[str] = []
    for row in rows.values():
        names += [key for key in row if "/" in key and key not in names]
    if not rows:
        return '<p class="note">No scores yet.</p>'
    lines: list[list[Any]] = [
        [where, *(_cell(row.get(name)) for name in names)] for where, row in rows.items()
    ]
    return table(["", *(name.removeprefix("caption/") for name in names)], lines)


def _cell(score: float | None) -> float | str:
    return "-" if score is None or math.isnan(score) else score


def _cider(score: float) -> str:
    return "CIDEr undefined" if math.isnan(score) else f"CIDEr {score:.1f}"


def _epoch_of(best: str) -> int | None:
    digits = Path(best).stem.rpartition("_")[2]
    return int(digits) if digits.isdecimal() else None


def _loss_chart(run: Run) -> str:
    steps = [row["step"] for row in run.train]
    return charts.curves({"loss": (steps, [row["loss"] for row in run.train])}, "iteration", "loss")


def _score_chart(run: Run) -> str:
    names = [key for key in run.scores[-1] if "/" in key]
    series = {}
    for name in names:
        rows = [row for row in run.scores if name in row]
        series[name.removeprefix("caption/")] = (
            [row["step"] for row in rows],
            [row[name] for row in rows],
        )
    # CIDEr and CIDEr-D are one line.
    if series.get("CIDEr") == series.get("CIDEr-D"):
        series.pop("CIDEr-D", None)
    return charts.curves(series, "validated at", "score on validation")
