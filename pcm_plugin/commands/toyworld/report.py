"""Tables of ``docs/results.md``: scores, correctness of captions, and what the mix-up mixes."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from operator import eq
from pathlib import Path

import torch
from mmengine.config import Config

from pcm_plugin.commands.toyworld.arms import VALIDATION, guidance_arm
from pcm_plugin.commands.toyworld.conditions import (
    FIGURE,
    condition_table,
    draw_conditions,
    read_points,
)
from pcm_plugin.commands.toyworld.guidances import GUIDANCES
from pcm_plugin.commands.toyworld.records import Records, found_name
from pcm_plugin.commands.toyworld.scores import (
    Row,
    cell,
    difference,
    has_scores,
    line,
    rows_of,
    scores,
    signed,
    signed_cell,
    table_head,
)
from pcm_plugin.commands.toyworld.steps import DATA, TARGETS
from pcm_plugin.commands.toyworld.tables import COMPARED
from pcm_plugin.engine.config_files import find_config
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.registry import MODELS
from pcm_plugin.toyworld import ASSETS
from pcm_plugin.toyworld.truth import FREQUENCIES, named_things

PAGE = Path("docs/results.md")
OTHER_METRICS = ("BLEU-4", "ROUGE-L")
OBJECT_SCORES = ("named right", "found", "repeated", "color right")
MIXUP_SHARES = (
    "named objects among the 5 concepts",
    "named objects mixed in",
    "mixed patches whose concept is named",
    "mixed patches nearest to their concept",
)
MIXUP_STORES = {"mix-up, synthetic images": "train_store", "mix-up, real images": "real_store"}
"""Stores of the town on which the mix-up is measured, by the name of the measurement."""


def write_page(records: Records, seeds_of: Mapping[str, int]) -> Path:
    """Write tables into ``docs/results.md``, each between its markers.

    Args:
        records: Scores of the runs.
        seeds_of: Number of seeds of each table. Seeds and rows without results are left out.

    Returns:
        The page.
    """
    page = PAGE.read_text() if PAGE.exists() else "# Results\n"
    for table, seeds in seeds_of.items():
        start, end = f"<!-- {table}: pcm results -->", f"<!-- end of {table} -->"
        if start not in page:
            page += f"\n{start}\n{end}\n"
        parts = table_parts(records, table, seeds)
        text = "\n\n".join("\n".join(lines) for lines in parts if lines)
        head, rest = page.split(start)
        page = f"{head}{start}\n\n{text}\n\n{end}{rest.split(end)[1]}"
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page)
    return PAGE


def table_parts(records: Records, table: str, seeds: int) -> list[list[str]]:
    """Return the lines of the parts of a table."""
    if table == "guidance":
        return [guidance_table(records, rows_of(table), seeds)]
    rows = {name: row for name, row in rows_of(table).items() if has_scores(records, row, seeds)}
    if not rows:
        return []
    if table == "conditions":
        points = read_points(records, seeds)
        draw_conditions(points, PAGE.parent / FIGURE)
        figure = [f"![CIDEr gained by the mix-up and by patch dropout]({FIGURE})"]
        return [figure, condition_table(points), frequency_table(records, rows, seeds)]
    parts = [score_table(records, rows, seeds), object_table(records, rows, seeds)]
    parts += [mixup_table(records)] if table == "ablation" else []
    parts += [frequency_table(records, rows, seeds)] if table == "controls" else []
    return [*parts, summary(records, rows, seeds, COMPARED[table])]


def score_table(records: Records, rows: dict[str, Row], seeds: int) -> list[str]:
    """Return the table of scores on both domains, as mean and standard error over seeds.

    Differences in CIDEr from the base are taken seed by seed. Rows of PCM-Net with the same pairs
    start, with one seed, with the same weights of their common parts and see the pairs in the same
    order.
    """
    domains = {name.split()[0]: target for name, target in TARGETS.items()}
    heads = [head for name in domains for head in (f"CIDEr, {name}", "over the base")]
    heads += [f"{metric}, {name}" for metric in OTHER_METRICS for name in domains]
    lines = table_head(["", "seeds", *heads])
    base = rows_of("controls")["base"]
    for row in rows.values():
        cells, counts = [], []
        for target in domains.values():
            ciders = scores(records, row, target, "CIDEr", seeds)
            gain = difference(ciders, scores(records, base, target, "CIDEr", seeds))
            is_base = (row.arm, row.variant) == (base.arm, base.variant)
            cells += [cell([*ciders.values()]), "-" if is_base else signed_cell(*gain)]
            counts.append(len(ciders))
        cells += [
            cell([*scores(records, row, target, metric, seeds).values()])
            for metric in OTHER_METRICS
            for target in domains.values()
        ]
        lines.append(line([row.title, str(max(counts)), *cells]))
    return lines


def guidance_table(records: Records, rows: Mapping[str, Row], seeds: int) -> list[str]:
    """Return the table of guidance scales: scores of the base, and measurements of the images."""
    quality = json.loads((ASSETS / "quality.json").read_text())
    measures = list(quality["real pictures"])
    domains = [domain.split()[0] for domain in TARGETS]
    heads = ["CIDEr, validation", *(f"CIDEr, {domain}" for domain in domains), *measures]
    lines = table_head(["guidance", "seeds", *heads])
    for guidance in GUIDANCES:
        arm = guidance_arm(guidance)
        tests = [(arm + VALIDATION, None), *((arm, target) for target in TARGETS.values())]
        ciders = [
            list(scores(records, rows[row], target, "CIDEr", seeds).values())
            for row, target in tests
        ]
        measured = quality[f"synthetic images, guidance {guidance:g}"]
        counts = str(max(map(len, ciders)))
        cells = [*map(cell, ciders), *(f"{measured[name]:.3g}" for name in measures)]
        lines.append(line([f"{guidance:g}", counts, *cells]))
    real = [f"{quality['real pictures'][name]:.3g}" for name in measures]
    return [*lines, line(["real pictures", "", "", "", "", *real])]


def object_table(records: Records, rows: dict[str, Row], seeds: int) -> list[str]:
    """Return the table of how well the captions of the town name the objects of their scenes."""
    lines = table_head(["town, %", *OBJECT_SCORES])
    for row in rows.values():
        values = [scores(records, row, None, name, seeds).values() for name in OBJECT_SCORES]
        lines.append(line([row.title, *map(cell, map(list, values))]))
    return lines


def frequency_table(records: Records, rows: dict[str, Row], seeds: int) -> list[str]:
    """Return the table of the things found, by how often training captions mention their kind."""
    columns = [(domain, frequency) for domain in TARGETS for frequency in FREQUENCIES]
    heads = [f"{frequency}, {domain.split()[0]}" for domain, frequency in columns]
    lines = table_head(["things found, %", *heads])
    for row in rows.values():
        found = [
            scores(records, row, TARGETS[domain], found_name(frequency), seeds).values()
            for domain, frequency in columns
        ]
        lines.append(line([row.title, *map(cell, map(list, found))]))
    return lines


def mixup_table(records: Records) -> list[str]:
    """Return the table of what the mix-up finds and mixes in synthetic and in real pairs."""
    lines = table_head(["training pairs of the town, %", *MIXUP_SHARES])
    for name, store in MIXUP_STORES.items():
        shares = records.measured(name, partial(mixup_shares, DATA / "town" / store))
        title = name.removeprefix("mix-up, ")
        lines.append(line([title, *(f"{shares[head]:.1f}" for head in MIXUP_SHARES)]))
    return lines


def summary(
    records: Records, rows: dict[str, Row], seeds: int, compared: Sequence[tuple[str, str]]
) -> list[str]:
    """Return the gap between base and oracle, and differences of pairs of rows seed by seed."""
    lines = []
    for title, target in TARGETS.items():
        values = {name: scores(records, row, target, "CIDEr", seeds) for name, row in rows.items()}
        if values.get("base") and values.get("oracle"):
            base, oracle = (statistics.mean(values[name].values()) for name in ("base", "oracle"))
            gap = signed_cell(*difference(values["oracle"], values["base"]))
            lines.append(
                f"- CIDEr, {title}: the base reaches {100 * base / oracle:.0f} % of the oracle; "
                f"oracle - base: {gap}."
            )
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
