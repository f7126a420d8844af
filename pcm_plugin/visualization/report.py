"""Web page about one training run."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from PIL import Image

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.visualization.charts import histogram, line_chart
from pcm_plugin.visualization.entry import SheetEntry
from pcm_plugin.visualization.page import Card, make_card, render


class ScoredEntry(NamedTuple):
    """A captioned image of the evaluated split.

    Attributes:
        entry: Image, caption, references, concepts and mixed patches.
        cider: CIDEr of this image, times 100; NaN if it is undefined.
    """

    entry: SheetEntry
    cider: float


class TrainingPair(NamedTuple):
    """An image-caption pair of the training set.

    Attributes:
        image: Synthetic image.
        caption: Caption.
        score: CLIP score, 2.5 * cosine.
    """

    image: Image.Image
    caption: str
    score: float


class PageTable(NamedTuple):
    """A table of the page.

    Attributes:
        heading: Its heading.
        head: Names of the columns.
        rows: Cells; numbers are shown with two digits after the point.
    """

    heading: str
    head: Sequence[str]
    rows: Sequence[Sequence[str | float]]


class RunLog(NamedTuple):
    """Logged values of a training run.

    Attributes:
        train: Values logged during training, by step.
        validation: Validation scores, by epoch.
        tests: Folder of a test to its scores; None for an undefined score.
    """

    train: list[dict[str, float]]
    validation: list[dict[str, float]]
    tests: dict[str, dict[str, float | None]]


def read_run(work_dir: Path) -> RunLog:
    """Read the logs in a work folder, including those before the run was resumed.

    Args:
        work_dir: The folder, with ``TIMESTAMP/vis_data/scalars.json`` files of MMEngine and
            ``metrics.json`` files of ``pcm test``.

    Raises:
        MissingFileError: If there are no logs.
        UserError: If a file with scores is damaged.
    """
    files = sorted(work_dir.glob("*/vis_data/scalars.json"))
    if not files:
        raise MissingFileError(
            f"{work_dir} is not the work folder of a training: it contains no "
            "TIMESTAMP/vis_data/scalars.json"
        )
    train: dict[float, dict[str, float]] = {}
    validation: dict[float, dict[str, float]] = {}
    for file in files:
        for row in _read_rows(file):
            step = row.get("step", 0)
            # A resumed run repeats the steps after its checkpoint. The later values are kept.
            (train if "loss" in row else validation)[step] = row
    tests = {}
    for file in sorted(work_dir.rglob("metrics.json")):
        try:
            metrics = json.loads(file.read_text())["metrics"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{file} contains no scores: repeat the test or delete it") from None
        tests[str(file.parent.relative_to(work_dir))] = metrics
    return RunLog(
        [train[step] for step in sorted(train)],
        [validation[step] for step in sorted(validation)],
        tests,
    )


def report_page(
    title: str,
    run: RunLog,
    config: str,
    grid: tuple[int, int],
    checkpoint: str,
    samples: Sequence[ScoredEntry] = (),
    clip_scores: np.ndarray | None = None,
    low: Sequence[TrainingPair] = (),
    high: Sequence[TrainingPair] = (),
    notes: Sequence[str] = (),
    assessment: str = "",
    tables: Sequence[PageTable] = (),
    sheets: Mapping[str, Sequence[SheetEntry]] | None = None,
) -> str:
    """Render the page about a run.

    Args:
        title: Title of the page.
        run: Logged values.
        config: Text of the config.
        grid: Rows and columns of the patches.
        checkpoint: Name of the checkpoint that captioned the samples.
        samples: Captioned images, best first, as :func:`choose_samples` orders them.
        clip_scores: (P,) CLIP scores of the training pairs.
        low: Pairs with the lowest CLIP scores.
        high: Pairs with the highest CLIP scores.
        notes: Remarks at the top, such as why something is not shown.
        assessment: Sentence above them about the captioner.
        tables: Tables after the scores.
        sheets: Images with captions, by heading, after the tables.

    Returns:
        HTML document without references to other files.
    """
    score_head, score_rows = _score_table(run, checkpoint)
    pairs = {"Pairs with the lowest CLIP scores": low, "Pairs with the highest CLIP scores": high}
    others = {
        name: [make_card(entry, grid) for entry in part] for name, part in (sheets or {}).items()
    }
    examples = {
        **others,
        **{name: [_sample_card(s, grid) for s in part] for name, part in _split(samples).items()},
        **{name: [_pair_card(p, grid) for p in part] for name, part in pairs.items()},
    }
    return render(
        "report.html",
        title=title,
        notes=notes,
        assessment=assessment,
        tables=tables,
        score_head=score_head,
        score_rows=score_rows,
        charts=_charts(run, clip_scores),
        examples=[(name, cards) for name, cards in examples.items() if cards],
        config=config,
    )


def choose_samples(ciders: Sequence[float], count: int) -> list[int]:
    """Return the indices of up to ``count`` best, median and worst scores, best first.

    Args:
        ciders: Score of each image.
        count: Number of images of each kind.
    """
    order = sorted(range(len(ciders)), key=lambda i: -ciders[i])
    if len(order) <= 3 * count:
        return order
    middle = (len(order) - count) // 2
    return [*order[:count], *order[middle : middle + count], *order[-count:]]


def _read_rows(file: Path) -> Iterator[dict[str, float]]:
    for line in file.read_text().splitlines():
        # A run that was killed leaves an incomplete line.
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def _split(samples: Sequence[ScoredEntry]) -> dict[str, Sequence[ScoredEntry]]:
    """Return the best, median and worst third of the samples by heading."""
    count = -(-len(samples) // 3)
    headings = ("Best captions by CIDEr", "Captions around the median", "Worst captions by CIDEr")
    return {heading: samples[i * count : (i + 1) * count] for i, heading in enumerate(headings)}


def _sample_card(sample: ScoredEntry, grid: tuple[int, int]) -> Card:
    note = "CIDEr undefined" if math.isnan(sample.cider) else f"CIDEr {sample.cider:.1f}"
    return make_card(sample.entry, grid, note)


def _pair_card(pair: TrainingPair, grid: tuple[int, int]) -> Card:
    return make_card(SheetEntry(pair.image, pair.caption), grid, f"CLIP score {pair.score:.3f}")


def _score_table(run: RunLog, checkpoint: str) -> tuple[list[str], list[list[str | float]]]:
    """Return header and rows: validation scores of the checkpoint, then all tests."""
    scores: dict[str, Mapping[str, float | None]] = {}
    epoch = _epoch_of(checkpoint)
    for row in run.validation:
        if row.get("step") == epoch:
            unit = "iteration" if "_iter_" in f"_{checkpoint}" else "epoch"
            scores[f"validation, {unit} {epoch}"] = row
    scores |= run.tests
    metrics = dict.fromkeys(key for row in scores.values() for key in row if "/" in key)
    head = ["", *(metric.removeprefix("caption/") for metric in metrics)]
    return head, [
        [name, *(_cell(row.get(metric)) for metric in metrics)] for name, row in scores.items()
    ]


def find_cider(run: RunLog, checkpoint: str) -> tuple[float, str]:
    """Return a CIDEr of a checkpoint and the name of its images, or NaN and an empty name.

    It is that of the first test, or else of the validation.

    Args:
        run: Logged values.
        checkpoint: Name of the checkpoint.
    """
    head, rows = _score_table(run, checkpoint)
    if "CIDEr" not in head:
        return math.nan, ""
    column = head.index("CIDEr")
    for name, *cells in sorted(rows, key=lambda row: str(row[0]).startswith("validation")):
        score = cells[column - 1]
        if isinstance(score, float | int):
            return float(score), str(name)
    return math.nan, ""


def _cell(score: float | None) -> float | str:
    return "-" if score is None or math.isnan(score) else score


def _epoch_of(checkpoint: str) -> int | None:
    digits = Path(checkpoint).stem.rpartition("_")[2]
    return int(digits) if digits.isdecimal() else None


def _charts(run: RunLog, clip_scores: np.ndarray | None) -> list[Markup]:
    charts = []
    if run.train:
        losses = ([row["step"] for row in run.train], [row["loss"] for row in run.train])
        charts.append(line_chart({"loss": losses}, "iteration", "loss"))
    if run.validation:
        charts.append(_validation_chart(run))
    if clip_scores is not None:
        median = {"median": float(np.median(clip_scores))}
        charts.append(histogram(clip_scores, "CLIP score (2.5 cos)", "training pairs", median))
    return charts


def _validation_chart(run: RunLog) -> Markup:
    series = {}
    for name in (key for key in run.validation[-1] if "/" in key):
        rows = [row for row in run.validation if name in row]
        series[name.removeprefix("caption/")] = (
            [row["step"] for row in rows],
            [row[name] for row in rows],
        )
    # Equal curves would hide each other.
    if series.get("CIDEr") == series.get("CIDEr-D"):
        series.pop("CIDEr-D", None)
    return line_chart(series, "epoch or iteration of the validation", "validation score")
