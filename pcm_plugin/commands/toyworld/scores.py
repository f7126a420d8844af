"""Scores of the runs of ``pcm results``, and their differences."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pcm_plugin.commands.evaluation_names import folder_name
from pcm_plugin.commands.toyworld.arms import ARMS
from pcm_plugin.commands.toyworld.demo import TARGETS
from pcm_plugin.commands.toyworld.tables import TABLES


@dataclass(frozen=True)
class Row:
    """A row of the tables.

    Attributes:
        title: Its title.
        arm: Name of the training, and of the folder of its runs.
        variant: Ending of its test folders, if it was tested with changed settings.
    """

    title: str
    arm: str
    variant: str = ""


def rows_of(table: str) -> dict[str, Row]:
    """Return the rows of a table by name, in order."""
    rows = {}
    for name in TABLES[table]:
        arm = next(arm for arm in sorted(ARMS, key=len, reverse=True) if name.startswith(arm))
        variant = name.removeprefix(arm)
        title = ARMS[arm].variants[variant].title if variant else ARMS[arm].title
        rows[name] = Row(title, arm, variant)
    return rows


def finished(work: Path, row: Row, target: str | None, name: str, seeds: int) -> dict[int, Path]:
    """Return the file with a name of each seed that has scores."""
    test = folder_name(target) + row.variant
    folders = {seed: work / row.arm / f"seed{seed}" / test for seed in range(seeds)}
    return {
        seed: folder / name
        for seed, folder in folders.items()
        if (folder / "metrics.json").exists()
    }


def has_scores(work: Path, row: Row, seeds: int) -> bool:
    """Return whether a row has scores of any seed on any domain."""
    return any(finished(work, row, target, "metrics.json", seeds) for target in TARGETS.values())


def read_captions(work: Path, row: Row, target: str | None, seeds: int) -> list[dict[str, str]]:
    """Return the captions of each seed by image id."""
    files = finished(work, row, target, "captions.json", seeds).values()
    return [
        {entry["image_id"]: entry["caption"] for entry in json.loads(file.read_text())}
        for file in files
    ]


def scores(work: Path, row: Row, target: str | None, metric: str, seeds: int) -> dict[int, float]:
    """Return one score of a row for each seed that has it."""
    files = finished(work, row, target, "metrics.json", seeds)
    return {
        seed: json.loads(file.read_text())["metrics"][f"caption/{metric}"]
        for seed, file in files.items()
    }


def table_head(heads: Sequence[str]) -> list[str]:
    """Return the first two lines of a Markdown table."""
    return [line(heads), "|" + "---|" * len(heads)]


def line(cells: Sequence[str]) -> str:
    """Return a line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def cell(values: Sequence[float]) -> str:
    """Return mean and standard error, as in ``90.1 ± 2.3``; one seed has no error."""
    if not values:
        return "-"
    mean, error = mean_and_error(values)
    return f"{mean:.1f}" if math.isnan(error) else f"{mean:.1f} ± {error:.1f}"


def signed(value: float, digits: int = 1) -> str:
    """Return a rounded difference with its sign; zero has a plus."""
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def signed_cell(value: float, error: float) -> str:
    """Return a difference and its standard error, as in ``+2.0 ± 0.5``; NaN is left out."""
    if math.isnan(value):
        return "-"
    return signed(value) if math.isnan(error) else f"{signed(value)} ± {error:.1f}"


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.mean(values), error


def difference(one: Mapping[int, float], other: Mapping[int, float]) -> tuple[float, float]:
    """Return the mean difference of the seeds that both have, and its standard error.

    Args:
        one: Values by seed.
        other: Values to subtract.

    Returns:
        NaN if no seed has both; the error is NaN if only one has.
    """
    differences = [one[seed] - other[seed] for seed in one.keys() & other.keys()]
    return mean_and_error(differences) if differences else (math.nan, math.nan)
