"""Table and figure of what the mix-up and patch dropout gain under several conditions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from pcm_plugin.commands.toyworld.arm_features import FEATURES
from pcm_plugin.commands.toyworld.arms import CONDITIONS, Condition
from pcm_plugin.commands.toyworld.records import Records
from pcm_plugin.commands.toyworld.scores import (
    cell,
    difference,
    line,
    rows_of,
    scores,
    signed_cell,
    table_head,
)
from pcm_plugin.commands.toyworld.steps import SIZES, TARGETS
from pcm_plugin.formats.clip_head import load_clip_head
from pcm_plugin.models.backbones import OpenCLIPBackbone
from pcm_plugin.toyworld.prior import quality

FIGURE = "images/when_the_mixup_helps.png"
DEFAULT = Condition("", "plain patches, 3,000 pairs, 16 epochs, M = 5, K = 5", "", "base")
"""The condition of the config, which every panel of the figure contains."""
_GAINS = {"mix-up": "mix", "patch dropout": "drop"}
_AXES = {
    "patches": "patch accuracy, %",
    "training pairs": "training pairs",
    "epochs": "epochs",
    "M": "mixed pairs M",
    "K": "concepts K",
}
_DEFAULTS = {"training pairs": SIZES["town"]["train"], "epochs": 16, "M": 5, "K": 5}


@dataclass(frozen=True)
class Point:
    """Measurements under a condition.

    Attributes:
        condition: The condition.
        patch_accuracy: Patches of which a thing covers at least half, and whose nearest concept is
            that thing, in %; None without scores of the mix-up and patch dropout, since the
            features may not exist.
        concept_recall: Things in real images that are among the K concepts, in %, or None.
        ciders: CIDEr of the base, the mix-up and patch dropout by data set, name and seed.
    """

    condition: Condition
    patch_accuracy: float | None
    concept_recall: float | None
    ciders: Mapping[str, Mapping[str, Mapping[int, float]]]

    def gain(self, domain: str, name: str, over: str = "base") -> tuple[float, float]:
        """Return the gain of a setting in CIDEr, and its standard error; NaN without scores."""
        return difference(self.ciders[domain][name], self.ciders[domain][over])


def read_points(records: Records, seeds: int) -> list[Point]:
    """Return the points of all conditions with scores, that of the config first.

    Args:
        records: Scores of the runs.
        seeds: Number of seeds. Seeds without results are left out.
    """
    rows = rows_of("conditions")
    points = []
    for condition in (DEFAULT, *CONDITIONS):
        names = {"base": condition.base, **{n: n + condition.ending for n in _GAINS.values()}}
        ciders = {
            domain: {
                name: scores(records, rows[row], target, "CIDEr", seeds)
                for name, row in names.items()
            }
            for domain, target in TARGETS.items()
        }
        accuracy = recall = None
        is_measured = any(by_name[n] for by_name in ciders.values() for n in _GAINS.values())
        if not is_measured and condition is not DEFAULT:
            continue
        if is_measured:
            concepts = (condition.value if condition.group == "K" else None) or _DEFAULTS["K"]
            accuracy = records.measured(
                f"patch accuracy, {condition.features}",
                partial(_patch_accuracy, condition.features),
            )["accuracy"]
            clip = FEATURES[condition.features].clip
            recall = records.measured(
                f"recall of {concepts} concepts, {Path(clip).name}",
                partial(_concept_recall, clip, concepts),
            )["recall"]
        points.append(Point(condition, accuracy, recall, ciders))
    return points


def _patch_accuracy(features: str) -> Mapping[str, float]:
    chosen = FEATURES[features]
    clip = OpenCLIPBackbone(chosen.clip, patch_mode=chosen.patch_mode)
    head = load_clip_head(chosen.head) if chosen.is_rotated else None
    return quality.patch_accuracy(clip, head=head)


def _concept_recall(clip: str, top: int) -> Mapping[str, float]:
    recall = quality.concept_recall(OpenCLIPBackbone(clip), top=top)
    return {"recall": recall[f"recall@{top}"]}


def condition_table(points: Sequence[Point]) -> list[str]:
    """Return the table of the gains in CIDEr under each condition."""
    short = {domain: domain.split()[0] for domain in TARGETS}
    gains = [(domain, name, "base") for domain in TARGETS for name in _GAINS.values()]
    gains += [(domain, "mix", "drop") for domain in TARGETS]
    titles = {name: title for title, name in _GAINS.items()} | {"base": "base"}
    heads = [f"{titles[one]} - {titles[other]}, {short[d]}" for d, one, other in gains]
    columns = ["", "seeds", "patch accuracy, %", "concept recall, %"]
    lines = table_head([*columns, *(f"base, {name}" for name in short.values()), *heads])
    for point in points:
        bases = [list(point.ciders[domain]["base"].values()) for domain in TARGETS]
        cells = [signed_cell(*point.gain(*gain)) for gain in gains]
        measured = [
            "-" if value is None else f"{value:.1f}"
            for value in (point.patch_accuracy, point.concept_recall)
        ]
        ciders = point.ciders[next(iter(TARGETS))]
        counts = (len(ciders["base"].keys() & ciders[name].keys()) for name in _GAINS.values())
        count = str(max(counts))
        lines.append(line([point.condition.title, count, *measured, *map(cell, bases), *cells]))
    return lines


def draw_conditions(points: Sequence[Point], path: Path) -> None:
    """Draw the gains in the in-domain test against what is varied, with two standard errors.

    Args:
        points: The points, that of the config first.
        path: PNG file to write.
    """
    domain = next(iter(TARGETS))
    figure = Figure(figsize=(12, 6), layout="constrained")
    *panels, legend = figure.subplots(2, 3).flat
    for axes, (group, label) in zip(panels, _AXES.items(), strict=True):
        for title, name in _GAINS.items():
            drawn = [
                (_position(point, group), *point.gain(domain, name))
                for point in points
                if point.condition.group in (group, "")
            ]
            drawn = sorted(row for row in drawn if not math.isnan(row[2]))
            axes.errorbar(
                [position for position, _, _ in drawn],
                [gain for _, gain, _ in drawn],
                [2 * error for _, _, error in drawn],
                label=title,
                marker="o",
                linestyle="none" if group == "patches" else "-",
                capsize=3,
            )
        axes.axhline(0, color="gray", linewidth=0.8)
        axes.set_xlabel(label)
        axes.set_ylabel("CIDEr over the base")
        axes.spines[["top", "right"]].set_visible(False)
        if group != "patches":
            axes.set_xscale("log")
    legend.axis("off")
    legend.legend(*panels[0].get_legend_handles_labels(), frameon=False, loc="center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _position(point: Point, group: str) -> float:
    """Return the position of a point on the axis of a group."""
    if group == "patches":
        return math.nan if point.patch_accuracy is None else point.patch_accuracy
    return point.condition.value or _DEFAULTS[group]
