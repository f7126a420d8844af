"""Tables of ``docs/results.md``: their rows, numbers of seeds and reported differences."""

from collections.abc import Iterable, Sequence

from pcm_plugin.commands.toyworld.arms import (
    ARMS,
    CLAIM,
    COMPARED_SETTINGS,
    CONDITIONS,
    NO_TEXTS,
    POOLS,
    RANKS,
    RANKS_TWO_CLIPS,
    RERANK,
    VALIDATION,
    arms_under,
    guidance_arm,
)
from pcm_plugin.commands.toyworld.guidances import GUIDANCES


def _claim_rows(*endings: str) -> list[str]:
    return [name + ending for ending in endings for name in CLAIM]


def _on_photos(setting: str) -> list[str]:
    return [arm for arm, (name, _) in POOLS.items() if name == setting]


TABLES: dict[str, Sequence[str]] = {
    "systems": [
        *("capdec", "decap", "syntic", "prefix_text", "prefix", "prefix_patches", "prefix_pcm"),
        *("blip", "blip_pcm"),
        *("base", "both", "both_sync", "both" + RERANK, "both_sync" + RERANK, "oracle"),
    ],
    "ablation": [
        *_claim_rows("", "_sync", "_maskclip", "_sync_maskclip", "_sclip", "_sync_sclip"),
        *("base_filter", "oracle"),
    ],
    "controls": [
        *("base", "mix", "mix" + NO_TEXTS, "drop", "drop_random"),
        *("random_patches", "random_patches" + NO_TEXTS),
        *("random_concepts", "random_concepts" + NO_TEXTS),
        *("append", "per_concept", "per_concept_append", "oracle"),
    ],
    "conditions": [
        *COMPARED_SETTINGS,
        *(arm for condition in CONDITIONS for arm in arms_under(condition)),
    ],
    "recommended": [
        *("base" + ending for ending in ("", RERANK, RANKS, RANKS_TWO_CLIPS)),
        *("base_sync", "base_best", "base_several", "base_average", "base_48epochs"),
        *("recommended" + ending for ending in ("", RERANK, RANKS, RANKS_TWO_CLIPS)),
        *("both", "both" + RERANK, "oracle"),
        *("oracle_48epochs" + ending for ending in ("", RERANK, RANKS, RANKS_TWO_CLIPS)),
    ],
    "photos": [
        *(row for name in ("base", "both") for row in (name, f"{name}_sync", *_on_photos(name))),
        "oracle",
    ],
    "guidance": [name + end for name in map(guidance_arm, GUIDANCES) for end in ("", VALIDATION)],
}
"""Rows of the tables: names of arms, some with the ending of a variant."""
SEEDS = {"systems": 5, "ablation": 10, "controls": 10, "conditions": 10}
SEEDS |= {"recommended": 10, "photos": 5, "guidance": 5}
"""Number of seeds of each table."""
COMPARED: dict[str, Sequence[tuple[str, str]]] = {
    "systems": [
        *(("both", "capdec"), ("both_sync", "both"), ("both" + RERANK, "both")),
        *(("both_sync" + RERANK, "both"), ("both_sync" + RERANK, "oracle"), ("syntic", "decap")),
        *(("prefix_pcm", "prefix_patches"), ("prefix_patches", "prefix")),
        *(("prefix_pcm", "prefix"), ("prefix_text", "prefix"), ("blip_pcm", "blip")),
    ],
    "ablation": [
        *(
            (name + end, "base" + end)
            for end in ("_sync", "_maskclip", "_sync_maskclip", "_sclip", "_sync_sclip")
            for name in CLAIM[1:]
        ),
    ],
    "recommended": [
        *(("base" + RERANK, "base"), ("base_several", "base_sync"), ("base_several", "base_best")),
        *(("recommended", "base_48epochs"), ("recommended" + RERANK, "recommended")),
        *(("recommended", "oracle"), ("recommended" + RERANK, "oracle")),
        *(("recommended", "oracle_48epochs"), ("recommended" + RERANK, "oracle_48epochs")),
        ("recommended" + RERANK, "oracle_48epochs" + RERANK),
        *(
            (name + ending, name + RERANK)
            for name in ("base", "recommended", "oracle_48epochs")
            for ending in (RANKS, RANKS_TWO_CLIPS)
        ),
    ],
    "photos": [
        *((arm, f"{name}_sync") for arm, (name, _) in POOLS.items()),
        *(("base_sync", "base"), ("both_sync", "both"), ("oracle", "base_photos_3000")),
    ],
    "controls": [
        *(("mix", "drop"), ("mix", "random_patches"), ("mix", "random_concepts")),
        *(("drop", "drop_random"), ("append", "drop"), ("per_concept", "mix")),
        *(("per_concept_append", "append"), ("per_concept_append", "drop")),
    ],
}
"""Pairs of rows whose difference is reported in addition to those from the base."""


def split_row(name: str) -> tuple[str, str]:
    """Return the arm of a row, and the ending of the variant, ``""`` for none."""
    arm = next(arm for arm in sorted(ARMS, key=len, reverse=True) if name.startswith(arm))
    return arm, name.removeprefix(arm)


def endings_of(arm: str, tables: Iterable[str]) -> set[str]:
    """Return the endings of the variants of an arm that are rows of tables.

    The test without changed settings, ``""``, is always among them.
    """
    rows = [split_row(row) for table in tables for row in TABLES[table]]
    return {"", *(ending for name, ending in rows if name == arm)}


def arms_of(table: str) -> list[str]:
    """Return the trainings that a table needs."""
    return [name for name in ARMS if name in TABLES[table]]
