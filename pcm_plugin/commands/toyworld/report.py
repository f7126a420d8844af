"""Tables of ``docs/results.md``: scores, correctness of captions, and what the mix-up mixes."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import eq
from pathlib import Path

import torch
from mmengine.config import Config

from pcm_plugin.commands.evaluation_names import folder_name
from pcm_plugin.commands.toyworld.arms import ARMS, COMPARED, TABLES
from pcm_plugin.commands.toyworld.demo import CAPTIONS, DATA, TARGETS
from pcm_plugin.engine.config_files import find_config
from pcm_plugin.formats.coco import read_coco_images
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.registry import MODELS
from pcm_plugin.toyworld.truth import (
    FREQUENCIES,
    agreement,
    count_kinds,
    found_by_frequency,
    named_things,
)
from pcm_plugin.toyworld.world import read_scenes

PAGE = Path("docs/results.md")
METRICS = ("BLEU-4", "ROUGE-L", "CIDEr")
OBJECT_SCORES = ("named right", "found", "repeated", "color right")
MIXUP_SHARES = (
    "named objects among the 5 concepts",
    "named objects mixed in",
    "mixed patches whose concept is named",
    "mixed patches nearest to their concept",
)


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


def write_page(work: Path, seeds: int, tables: Sequence[str]) -> Path:
    """Write tables into ``docs/results.md``, each between its markers.

    Args:
        work: Folder of the runs, with ``ARM/seedN/TEST[VARIANT]/{metrics,captions}.json``.
        seeds: Number of seeds. Seeds without results are left out.
        tables: Names of the tables.

    Returns:
        The page.
    """
    page = PAGE.read_text() if PAGE.exists() else "# Results\n"
    for table in tables:
        start, end = f"<!-- {table}: pcm results -->", f"<!-- end of {table} -->"
        if start not in page:
            page += f"\n{start}\n{end}\n"
        rows = rows_of(table)
        parts = [score_table(work, rows, seeds), object_table(work, rows, seeds)]
        parts += [mixup_table()] if table == "ablation" else []
        parts += [frequency_table(work, rows, seeds)] if table == "controls" else []
        parts.append(summary(work, rows, seeds, COMPARED[table]))
        text = "\n\n".join("\n".join(lines) for lines in parts if lines)
        head, rest = page.split(start)
        page = f"{head}{start}\n\n{text}\n\n{end}{rest.split(end)[1]}"
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page)
    return PAGE


def score_table(work: Path, rows: dict[str, Row], seeds: int) -> list[str]:
    """Return the table of scores on both domains, as mean and standard error over seeds."""
    lines = table_head(["", "seeds", *(f"{m}, {n.split()[0]}" for n in TARGETS for m in METRICS)])
    for row in rows.values():
        columns = [
            list(scores(work, row, target, metric, seeds).values())
            for target in TARGETS.values()
            for metric in METRICS
        ]
        lines.append(line([row.title, str(max(map(len, columns))), *map(cell, columns)]))
    return lines


def object_table(work: Path, rows: dict[str, Row], seeds: int) -> list[str]:
    """Return the table of how well the captions of the town name the objects of their scenes."""
    truth = read_scenes(DATA / "town" / "scenes_test.jsonl")
    lines = table_head(["town, %", *OBJECT_SCORES])
    for row in rows.values():
        agreements = [
            agreement([captions[key] for key in truth], list(truth.values()))
            for captions in read_captions(work, row, None, seeds)
        ]
        lines.append(line([row.title, *(cell([a[h] for a in agreements]) for h in OBJECT_SCORES)]))
    return lines


def frequency_table(work: Path, rows: dict[str, Row], seeds: int) -> list[str]:
    """Return the table of the things found, by how often training captions mention their kind."""
    counts = count_kinds(text for i in read_coco_images(CAPTIONS) for text in i.captions)
    heads = [f"{name}, {domain.split()[0]}" for domain in TARGETS for name in FREQUENCIES]
    lines = table_head(["things found, %", *heads])
    for row in rows.values():
        cells = []
        for domain, target in TARGETS.items():
            truth = read_scenes(DATA / domain.split()[0] / "scenes_test.jsonl")
            shares = [
                found_by_frequency([captions[key] for key in truth], list(truth.values()), counts)
                for captions in read_captions(work, row, target, seeds)
            ]
            for name in FREQUENCIES:
                values = [share[name] for share in shares]
                cells.append(cell([value for value in values if value is not None]))
        lines.append(line([row.title, *cells]))
    return lines


def mixup_table() -> list[str]:
    """Return the table of what the mix-up finds and mixes in synthetic and in real pairs."""
    lines = table_head(["training pairs of the town, %", *MIXUP_SHARES])
    for title, store in (("synthetic images", "train_store"), ("real images", "real_store")):
        shares = mixup_shares(DATA / "town" / store)
        lines.append(line([title, *(f"{shares[head]:.1f}" for head in MIXUP_SHARES)]))
    return lines


def summary(
    work: Path, rows: dict[str, Row], seeds: int, compared: Sequence[tuple[str, str]]
) -> list[str]:
    """Return the gap from base to oracle, the share of it that each row gains, and differences.

    Differences are taken seed by seed. Rows of PCM-Net with the same pairs start, with one seed,
    with the same weights of their common parts and see the pairs in the same order.
    """
    lines = []
    for title, target in TARGETS.items():
        values = {name: scores(work, row, target, "CIDEr", seeds) for name, row in rows.items()}
        values = {name: ciders for name, ciders in values.items() if len(ciders) > 1}
        if not values.keys() >= {"base", "oracle"}:
            continue
        base, oracle = (statistics.mean(values[name].values()) for name in ("base", "oracle"))
        gap, gap_error = difference(values["oracle"], values["base"])
        if math.isnan(gap_error) or gap <= 0:  # as after a single epoch
            continue
        lines.append(
            f"- CIDEr, {title}: the base reaches {100 * base / oracle:.0f} % of the oracle; the "
            f"gap is {gap:.1f} ± {gap_error:.1f}. Differences from the base:"
        )
        for name, ciders in values.items():
            gain, error = difference(ciders, values["base"])
            if name not in ("base", "oracle") and not math.isnan(error):
                share = f"{signed(100 * gain / gap, 0)} % of the gap"
                lines.append(f"  - {rows[name].title}: {signed(gain)} ± {error:.1f}, {share}")
        pairs = {
            (one, other): difference(values[one], values[other])
            for one, other in compared
            if values.keys() >= {one, other}
        }
        pairs = {names: found for names, found in pairs.items() if not math.isnan(found[1])}
        lines += [f"- CIDEr, {title}, pairwise differences:"] if pairs else []
        for (one, other), (gain, error) in pairs.items():
            how = ", same trainings" if rows[one].arm == rows[other].arm else ""
            lines.append(
                f"  - {rows[one].title} over {rows[other].title}: {signed(gain)} ± {error:.1f}{how}"
            )
    return lines


def finished(work: Path, row: Row, target: str | None, name: str, seeds: int) -> dict[int, Path]:
    """Return the file with a name of each seed that has scores."""
    test = folder_name(target) + row.variant
    folders = {seed: work / row.arm / f"seed{seed}" / test for seed in range(seeds)}
    return {
        seed: folder / name
        for seed, folder in folders.items()
        if (folder / "metrics.json").exists()
    }


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


@cache
@torch.inference_mode()
def mixup_shares(store: Path, batch_size: int = 100) -> dict[str, float]:
    """Return how often the mix-up finds and mixes in what the captions name, in percent."""
    neck = MODELS.build(Config.fromfile(find_config("pcm_toy")).model.neck).eval()
    features = FeatureStore(store)
    concepts = neck.concept_bank.embeddings
    named = found = mixed_in = patches = patches_named = patches_nearest = 0
    for start in range(0, len(features), batch_size):
        rows = range(start, min(start + batch_size, len(features)))
        patch_feats = torch.stack([features.patch_feats(i) for i in rows])
        mixed = neck(patch_feats, torch.stack([features.global_feats(i) for i in rows]))
        concept_of = mixed.affinity.argmax(2)
        # Among all concepts, not only the five of the image.
        nearest = (neck.matcher.clip_head(patch_feats) @ concepts.T).argmax(2)
        for i, index in enumerate(rows):
            words = [neck.concept_words[c] for c in mixed.concept_ids[i]]
            in_captions = {kind for text in features.captions(index) for kind in named_things(text)}
            mixed_words = [words[k] for k in concept_of[i][mixed.selected[i]]]
            named += len(in_captions)
            found += len(in_captions & set(words))
            mixed_in += len(in_captions & set(mixed_words))
            nearest_words = [neck.concept_words[c] for c in nearest[i][mixed.selected[i]]]
            patches_nearest += sum(map(eq, nearest_words, mixed_words))
            patches += len(mixed_words)
            patches_named += sum(word in in_captions for word in mixed_words)
    shares = (found / named, mixed_in / named, patches_named / patches, patches_nearest / patches)
    return {head: 100 * share for head, share in zip(MIXUP_SHARES, shares, strict=True)}


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
