"""The systems and settings that are compared in the toy world."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pcm_plugin.commands.evaluation_names import folder_name
from pcm_plugin.commands.paper_trainings import NO_MIX, NO_WEIGHT
from pcm_plugin.commands.toyworld.demo import CLIP, DATA, TARGETS
from pcm_plugin.engine.config_files import find_config

PAIRS = "train_dataloader.dataset.pairs"
REAL_STORE = DATA / "town" / "real_store"
BLIP_CLIP = f"model.vision_encoder.backbone.model_name={CLIP}"
# Endings of the folders of tests with changed settings.
NO_TEXTS = "_no_texts"
RERANK = "_rerank"
_RERANKED = (
    "model.decoding.beam_size=5",
    # Chosen on validation: docs/captioning.md.
    "model.decoding.rerank_weight=40",
    "model.backbone.type=pcm_plugin.OpenCLIPBackbone",
    f"model.backbone.model_name={CLIP}",
)


@dataclass(frozen=True)
class Variant:
    """A test of a trained captioner with changed settings.

    Attributes:
        title: Title of its row.
        options: Changes of the config, as for ``--cfg-options``.
    """

    title: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Arm:
    """A training that is compared with others.

    Attributes:
        title: Title of its row.
        options: Changes of the config, as for ``--cfg-options``.
        config: Name of the config.
        variants: Tests of the same training with changed settings, each with a row, by the ending
            of their folders.
    """

    title: str
    options: tuple[str, ...] = ()
    config: str = "pcm_toy"
    variants: Mapping[str, Variant] = field(default_factory=dict)


def _refined_pairs(method: str) -> str:
    return f"{PAIRS}={DATA}/town/{method}/pairs.safetensors"


def _without_texts(title: str) -> dict[str, Variant]:
    return {NO_TEXTS: Variant(title, ("model.neck.append_text_tokens=False",))}


ARMS = {
    "capdec": Arm("CapDec: text-only, noise on the text feature", config="capdec_toy"),
    "decap": Arm("DeCap: text-only, text memory", config="decap_toy"),
    "syntic": Arm("SynTIC (reconstruction)", config="syntic_toy"),
    "prefix_text": Arm("prefix captioner (small GPT-2), text-only", config="prefix_text_toy"),
    "prefix": Arm("prefix captioner, synthetic images' features", config="prefix_toy"),
    "prefix_patches": Arm(
        "prefix captioner, synthetic images' features and patches",
        (NO_MIX, *NO_WEIGHT),
        "prefix_pcm_toy",
    ),
    "prefix_pcm": Arm("prefix captioner with PCM and CLIP weights", config="prefix_pcm_toy"),
    "blip": Arm(
        "BLIP, tiny, from scratch, on synthetic images",
        ("model.vision_encoder.selection=none", *NO_WEIGHT, BLIP_CLIP),
        "pcm_blip_toy",
    ),
    "blip_pcm": Arm("BLIP with PCM and CLIP weights", (BLIP_CLIP,), "pcm_blip_toy"),
    "base": Arm("base: synthetic pairs, no mix-up, no weights", (NO_MIX, *NO_WEIGHT)),
    "mix": Arm(
        "base + mix-up",
        NO_WEIGHT,
        variants=_without_texts("base + mix-up, no text tokens at inference"),
    ),
    "drop": Arm(
        "patch dropout: the same patches replaced by a learned token",
        (*NO_WEIGHT, "model.neck.mix=drop"),
    ),
    "drop_random": Arm(
        "patch dropout: as many random patches",
        (*NO_WEIGHT, "model.neck.mix=drop", "model.neck.control=random_patches"),
    ),
    "random_patches": Arm(
        "base + mix-up of the same texts in random patches",
        (*NO_WEIGHT, "model.neck.control=random_patches"),
        variants=_without_texts("base + mix-up in random patches, no text tokens at inference"),
    ),
    "random_concepts": Arm(
        "base + mix-up of random concepts",
        (*NO_WEIGHT, "model.neck.control=random_concepts"),
        variants=_without_texts("base + mix-up of random concepts, no text tokens at inference"),
    ),
    "append": Arm(
        "base + texts appended in training too, no patch replaced",
        (*NO_WEIGHT, "model.neck.mix=append"),
    ),
    "per_concept": Arm(
        "base + mix-up of the best patch of each concept",
        (*NO_WEIGHT, "model.neck.selection=per_concept"),
    ),
    "per_concept_append": Arm(
        "base + text of each concept appended, no patch replaced",
        (*NO_WEIGHT, "model.neck.selection=per_concept", "model.neck.mix=append"),
    ),
    "weights": Arm("base + CLIP-weighted loss", (NO_MIX,)),
    "both": Arm(
        "base + both (PCM-Net)",
        variants={RERANK: Variant("PCM-Net + re-ranking by CLIP", _RERANKED)},
    ),
    "five_patches": Arm("base + both, mixing 5 patches as on COCO", ("model.neck.num_pairs=5",)),
    "sync": Arm("base, pairs refined by SynC", (NO_MIX, *NO_WEIGHT, _refined_pairs("sync"))),
    "filter": Arm(
        "base, worst 10 % of the pairs by CLIP score dropped",
        (NO_MIX, *NO_WEIGHT, _refined_pairs("filter")),
    ),
    "both_sync": Arm(
        "PCM-Net, pairs refined by SynC",
        (_refined_pairs("sync"),),
        variants={RERANK: Variant("PCM-Net, refined pairs + re-ranking by CLIP", _RERANKED)},
    ),
    "oracle": Arm(
        "oracle: the base on real pairs",
        (NO_MIX, *NO_WEIGHT, f"train_dataloader.dataset.store={REAL_STORE}"),
    ),
}
TABLES: dict[str, Sequence[str]] = {
    "systems": [
        *("capdec", "decap", "syntic", "prefix_text", "prefix", "prefix_patches", "prefix_pcm"),
        *("blip", "blip_pcm"),
        *("base", "both", "both_sync", "both" + RERANK, "both_sync" + RERANK, "oracle"),
    ],
    "ablation": [
        *("capdec", "base", "mix", "mix" + NO_TEXTS, "weights", "both", "five_patches"),
        *("sync", "filter", "oracle"),
    ],
    "controls": [
        *("base", "mix", "mix" + NO_TEXTS, "drop", "drop_random"),
        *("random_patches", "random_patches" + NO_TEXTS),
        *("random_concepts", "random_concepts" + NO_TEXTS),
        *("append", "per_concept", "per_concept_append", "oracle"),
    ],
}
"""Rows of the tables: names of arms, some with the ending of a variant."""
COMPARED: dict[str, Sequence[tuple[str, str]]] = {
    "systems": [
        *(("both", "capdec"), ("both_sync", "both"), ("both" + RERANK, "both")),
        *(("both_sync" + RERANK, "both"), ("both_sync" + RERANK, "oracle"), ("syntic", "decap")),
        *(("prefix_pcm", "prefix_patches"), ("prefix_patches", "prefix")),
        *(("prefix_pcm", "prefix"), ("prefix_text", "prefix"), ("blip_pcm", "blip")),
    ],
    "ablation": [("both", "capdec"), ("mix" + NO_TEXTS, "mix"), ("five_patches", "both")],
    "controls": [
        *(("mix", "drop"), ("mix", "random_patches"), ("mix", "random_concepts")),
        *(("drop", "drop_random"), ("append", "drop"), ("per_concept", "mix")),
        *(("per_concept_append", "append"), ("per_concept_append", "drop")),
    ],
}
"""Pairs of rows whose difference is reported in addition to those from the base."""


def arms_of(table: str) -> list[str]:
    """Return the trainings that a table needs."""
    return [name for name in ARMS if name in TABLES[table]]


def config_of(name: str) -> Path:
    """Return the config file of an arm."""
    return find_config(ARMS[name].config)


@dataclass(frozen=True)
class ArmTest:
    """A test of a trained captioner.

    Attributes:
        evaluation: Data set, as for ``pcm test --eval-on``; None for the town.
        options: Changes of the config, as for ``--cfg-options``.
    """

    evaluation: str | None
    options: list[str]


def tests_of(name: str) -> dict[str, ArmTest]:
    """Return the tests of an arm, by the name of the folder of their results."""
    arm = ARMS[name]
    tests = {folder_name(target): ArmTest(target, [*arm.options]) for target in TARGETS.values()}
    for suffix, variant in arm.variants.items():
        tests |= {
            folder_name(target) + suffix: ArmTest(target, [*arm.options, *variant.options])
            for target in TARGETS.values()
        }
    return tests
