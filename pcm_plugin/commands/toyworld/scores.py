"""Scores of the runs of ``pcm results``, and their differences."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pcm_plugin.commands.evaluation_names import folder_name
from pcm_plugin.commands.toyworld.arms import ARMS
from pcm_plugin.commands.toyworld.records import Records
from pcm_plugin.commands.toyworld.steps import TARGETS
from pcm_plugin.commands.toyworld.tables import TABLES, split_row


@dataclass(frozen=True)
class Row:
    """A row of the tables.

    Attributes:
        title: Its title.
        arm: Name of the training.
        variant: Ending of the names of its tests, if it was tested with changed settings.
    """

    title: str
    arm: str
    variant: str = ""


def rows_of(table: str) -> dict[str, Row]:
    """Return the rows of a table by name, in order."""
    rows = {}
    for name in TABLES[table]:
        arm, variant = split_row(name)
        title = ARMS[arm].variants[variant].title if variant else ARMS[arm].title
        rows[name] = Row(title, arm, variant)
    return rows


def has_scores(records: Records, row: Row, seeds: int) -> bool:
    """Return whether a row has scores of any seed on any domain."""
    return any(scores(records, row, target, "CIDEr", seeds) for target in TARGETS.values())


def scores(
    records: Records, row: Row, target: str | None, name: str, seeds: int
) -> dict[int, float]:
    """Return one score of a row for each seed that has it.

    Args:
        records: The records.
        row: The row.
        target: Data set of the test, as for ``pcm test --eval-on``; None is the town.
        name: A score of :data:`.Scores`.
        seeds: Number of seeds.
    """
    test = folder_name(target) + row.variant
    found = {seed: records.scores(row.arm, seed, test) or {} for seed in range(seeds)}
    values = {seed: values.get(name) for seed, values in found.items()}
    return {seed: value for seed, value in values.items() if value is not None}


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
