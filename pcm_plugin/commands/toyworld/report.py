"""The page of the toy world's results: scores, what captions get right, what is mixed."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from mmengine.config import Config

from pcm_plugin.commands.evaluations import folder_name
from pcm_plugin.commands.toyworld.arms import ARMS, COMPARED, TABLES
from pcm_plugin.commands.toyworld.demo import CONFIGS, DATA, TARGETS
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.registry import MODELS
from pcm_plugin.toyworld.truth import agreement, named_things
from pcm_plugin.toyworld.world import read_scenes

PAGE = Path("docs/results.md")
METRICS = ("BLEU-4", "ROUGE-L", "CIDEr")
READINGS = ("named right", "found", "repeated", "color right")
MIXING = (
    "named objects among the 5 concepts",
    "named objects mixed in",
    "mixed patches whose concept is named",
    "mixed patches nearest to their concept",
)


@dataclass(frozen=True)
class Row:
    """A row of the tables.

    Attributes:
        title: What it is called.
        arm: The folder of its runs.
        probe: The end of the names of their test folders, where they were tested with a change.
    """

    title: str
    arm: str
    probe: str = ""


def rows_of(table: str) -> dict[str, Row]:
    """The rows of a table by name, in order."""
    rows = {}
    for name in TABLES[table]:
        arm = next(arm for arm in sorted(ARMS, key=len, reverse=True) if name.startswith(arm))
        probe = name.removeprefix(arm)
        title = ARMS[arm].probes[probe].title if probe else ARMS[arm].title
        rows[name] = Row(title, arm, probe)
    return rows


def write_page(work: Path, seeds: int, tables: Sequence[str]) -> Path:
    """Put tables into docs/results.md, each between its markers; returns the page.

    Args:
        work: The folder of the runs: ``ARM/seedN/TEST[PROBE]/{metrics,captions}.json``.
        seeds: Seeds from 0 up to this are read; those that are not run yet are left out.
        tables: Names of tables.
    """
    page = PAGE.read_text() if PAGE.exists() else "# Results\n"
    for table in tables:
        start, end = f"<!-- {table}: tools/toyworld/results.py -->", f"<!-- end of {table} -->"
        if start not in page:
            page += f"\n{start}\n{end}\n"
        rows = rows_of(table)
        parts = [score_table(work, rows, seeds), reading_table(work, rows, seeds)]
        parts += [mixing_table()] if table == "ablation" else []
        parts.append(summary(work, rows, seeds, COMPARED[table]))
        text = "\n\n".join("\n".join(lines) for lines in parts if lines)
        head, rest = page.split(start)
        page = f"{head}{start}\n\n{text}\n\n{end}{rest.split(end)[1]}"
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page)
    return PAGE


def score_table(work: Path, rows: dict[str, Row], seeds: int) -> list[str]:
    """Mean and standard error of each arm's scores on both domains."""
    lines = table_head(["", "seeds", *(f"{m}, {n.split()[0]}" for n in TARGETS for m in METRICS)])
    for row in rows.values():
        columns = [scores(work, row, t, m, seeds) for t in TARGETS.values() for m in METRICS]
        lines.append(line([row.title, str(max(map(len, columns))), *map(cell, columns)]))
    return lines


def reading_table(work: Path, rows: dict[str, Row], seeds: int) -> list[str]:
    """What each arm's captions of the town say of their scenes."""
    truth = read_scenes(DATA / "town" / "scenes_test.jsonl")
    lines = table_head(["town, %", *READINGS])
    for row in rows.values():
        readings = []
        for file in finished(work, row, None, "captions.json", seeds):
            said = {entry["image_id"]: entry["caption"] for entry in json.loads(file.read_text())}
            readings.append(agreement([said[key] for key in truth], list(truth.values())))
        lines.append(line([row.title, *(cell([r[h] for r in readings]) for h in READINGS)]))
    return lines


def mixing_table() -> list[str]:
    """What the mix-up finds and mixes in the training pairs, drawn by the prior and real."""
    lines = table_head(["training pairs of the town, %", *MIXING])
    for title, store in (("synthetic images", "train_store"), ("real images", "real_store")):
        found = mixing(DATA / "town" / store)
        lines.append(line([title, *(f"{found[head]:.1f}" for head in MIXING)]))
    return lines


def summary(
    work: Path, rows: dict[str, Row], seeds: int, compared: Sequence[tuple[str, str]]
) -> list[str]:
    """The gap between base and oracle, where every arm lies in it, and arms beside each other."""
    lines = []
    for title, target in TARGETS.items():
        values = {name: scores(work, row, target, "CIDEr", seeds) for name, row in rows.items()}
        values = {name: found for name, found in values.items() if len(found) > 1}
        if not values.keys() >= {"base", "oracle"}:
            continue
        base, oracle = (statistics.mean(values[name]) for name in ("base", "oracle"))
        gap, gap_error = difference(values["oracle"], values["base"])
        if gap <= 0:  # as after one epoch: nobody has learnt anything
            continue
        lines.append(
            f"- CIDEr, {title}: the base reaches {100 * base / oracle:.0f} % of the oracle; the gap is "
            f"{gap:.1f} ± {gap_error:.1f}, {gap / gap_error:.0f} standard errors. "
            "Differences from the base:"
        )
        for name, found in values.items():
            if name not in ("base", "oracle"):
                gain, error = difference(found, values["base"])
                share = f"{signed(100 * gain / gap, 0)} % of the gap"
                lines.append(f"  - {rows[name].title}: {signed(gain)} ± {error:.1f}, {share}")
        pairs = [pair for pair in compared if values.keys() >= {*pair}]
        lines += [f"- CIDEr, {title}, pairwise differences:"] if pairs else []
        for one, other in pairs:
            same = rows[one].arm == rows[other].arm
            if same and len(values[one]) != len(values[other]):
                continue  # a training whose tests are not all run yet
            gain, error = difference(values[one], values[other], same)
            how = ", same trainings" if same else ""
            lines.append(
                f"  - {rows[one].title} over {rows[other].title}: {signed(gain)} ± {error:.1f}{how}"
            )
    return lines


def finished(work: Path, row: Row, target: str | None, name: str, seeds: int) -> list[Path]:
    """Files of this name, of the seeds that are scored."""
    folder = folder_name(target) + row.probe
    folders = [work / row.arm / f"seed{seed}" / folder for seed in range(seeds)]
    return [folder / name for folder in folders if (folder / "metrics.json").exists()]


def scores(work: Path, row: Row, target: str | None, metric: str, seeds: int) -> list[float]:
    """One score of a row, over the seeds that are scored."""
    files = finished(work, row, target, "metrics.json", seeds)
    return [json.loads(file.read_text())["metrics"][f"caption/{metric}"] for file in files]


@cache
@torch.inference_mode()
def mixing(store: Path, batch_size: int = 100) -> dict[str, float]:
    """How often the mix-up finds, and mixes in, what the captions name, in per cent."""
    neck = MODELS.build(Config.fromfile(CONFIGS / "pcm_toy.py").model.neck).eval()
    features = FeatureStore(store)
    concepts = neck.concept_bank.embeddings
    named = found = mixed_in = patches = patches_named = say_it = 0
    for start in range(0, len(features), batch_size):
        rows = range(start, min(start + batch_size, len(features)))
        patch_feats = torch.stack([features.patch_feats(i) for i in rows])
        mixed = neck(patch_feats, torch.stack([features.global_feats(i) for i in rows]))
        concept_of = mixed.affinity.argmax(2)
        # By itself, among all concepts, and not only the five of its image.
        alone = (neck.matcher.clip_head(patch_feats) @ concepts.T).argmax(2)
        for i, index in enumerate(rows):
            words = [neck.concept_words[c] for c in mixed.concept_ids[i]]
            said = {kind for text in features.captions(index) for kind in named_things(text)}
            chosen = [words[k] for k in concept_of[i][mixed.selected[i]]]
            named += len(said)
            found += len(said & set(words))
            mixed_in += len(said & set(chosen))
            own = [neck.concept_words[c] for c in alone[i][mixed.selected[i]]]
            say_it += sum(a == b for a, b in zip(own, chosen, strict=True))
            patches += len(chosen)
            patches_named += sum(word in said for word in chosen)
    shares = (found / named, mixed_in / named, patches_named / patches, say_it / patches)
    return {head: 100 * share for head, share in zip(MIXING, shares, strict=True)}


def table_head(heads: Sequence[str]) -> list[str]:
    """The first two lines of a table in Markdown."""
    return [line(heads), "|" + "---|" * len(heads)]


def line(cells: Sequence[str]) -> str:
    """A line of a table in Markdown."""
    return "| " + " | ".join(cells) + " |"


def cell(values: Sequence[float]) -> str:
    """Mean and standard error as the tables show them; one seed has no error."""
    if not values:
        return "-"
    mean, error = mean_and_error(values)
    return f"{mean:.1f}" if math.isnan(error) else f"{mean:.1f} ± {error:.1f}"


def signed(value: float, digits: int = 1) -> str:
    """A difference, rounded; none has no minus."""
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.mean(values), error


def difference(
    one: Sequence[float], other: Sequence[float], same: bool = False
) -> tuple[float, float]:
    """Difference of two means, and its standard error.

    Args:
        one: Values, one a seed.
        other: The others.
        same: Whether values of a seed are of one training, so that what seeds do drops out.
    """
    if same:
        return mean_and_error([a - b for a, b in zip(one, other, strict=True)])
    (mean, error), (other_mean, other_error) = mean_and_error(one), mean_and_error(other)
    return mean - other_mean, math.hypot(error, other_error)
