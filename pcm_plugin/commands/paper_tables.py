"""Tables of the papers, row by row: what is trained, what it is tested on, what is published."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pcm_plugin.commands.paper_trainings import (
    CLIP_WEIGHTS,
    NUM_PAIRS,
    PAPER_VALUES,
    SHARES,
    TOP_CONCEPTS,
    training_of,
)
from pcm_plugin.commands.published import SCORES, PublishedResult, load_published
from pcm_plugin.engine.config_files import list_configs

PCM_NET = "PCM-Net"
CAPDEC = "CapDec (published: RN50x4)"
SYNTIC = "SynTIC (ours: a reconstruction)"


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        title: Its title.
        training: Name of the training.
        eval_on: Data set that it is tested on, as for ``pcm test --eval-on``; None for that
            of its config.
    """

    title: str
    training: str
    eval_on: str | None = None

    @property
    def has_config(self) -> bool:
        """Whether this project has the system, or the row is published only."""
        return training_of(self.training).config in list_configs()

    @property
    def published(self) -> PublishedResult | None:
        """Published result of the row, None if none is known."""
        return load_published().get((self.training, self.eval_on))


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: What it shows.
        columns: Name of the score by the heading of the column.
        rows: Its rows.
        remark: What a reader must know to compare the rows.
    """

    title: str
    columns: Mapping[str, str]
    rows: Sequence[Row]
    remark: str = ""

    def published(self, row: Row) -> dict[str, float]:
        """Return the published figures of a row by the heading of the column."""
        metrics = row.published.metrics if row.published else {}
        return {head: metrics[name] for head, name in self.columns.items() if name in metrics}


PAPER_SCORES = {name: name for name in SCORES}
"""Columns of the papers."""
JAVA_FREE_SCORES = {name: name for name in ("BLEU-4", "ROUGE-L", "CIDEr")}
"""Columns that need no Java."""
NOCAPS_SCORES = {
    "CIDEr, in": "in-domain/CIDEr",
    "CIDEr, near": "near-domain/CIDEr",
    "CIDEr, out": "out-domain/CIDEr",
    "CIDEr, overall": "CIDEr",
}
"""Columns of NoCaps."""


def _rows_of_sweep(letter: str, values: Iterable[float]) -> list[Row]:
    names = {value: f"{letter}{value}" for value in values}
    return [
        Row(f"{letter} = {value:g}", "pcm_coco" if name in PAPER_VALUES else f"pcm_coco_{name}")
        for value, name in names.items()
    ]


def _with_heading(heading: str, rows: Iterable[Row]) -> list[Row]:
    return [replace(row, title=f"{heading}: {row.title}") for row in rows]


def _systems(dataset: str, eval_on: str | None = None) -> list[Row]:
    """Return a row per system that is trained on a data set."""
    return [
        Row(CAPDEC, f"capdec_{dataset}", eval_on),
        Row("DeCap", f"decap_{dataset}", eval_on),
        Row("ViECap", f"prefix_text_{dataset}", eval_on),
        Row(SYNTIC, f"syntic_{dataset}", eval_on),
        *([Row("IFCap", f"ifcap_{dataset}")] if eval_on is None else []),
        Row(f"{PCM_NET}, ViT-B/32", f"pcm_{dataset}", eval_on),
        Row(f"{PCM_NET}, ViT-L/14", f"pcm_{dataset}_vitl14", eval_on),
    ]


def _with_target_texts(dataset: str, eval_on: str) -> list[Row]:
    return [
        Row(f"{PCM_NET}, ViT-B/32", f"pcm_{dataset}", eval_on),
        Row("DeCap", f"decap_{dataset}", eval_on),
        Row("SynTIC (a reconstruction)", f"syntic_{dataset}", eval_on),
    ]


def _toy_rows() -> list[Row]:
    return [
        Row(PCM_NET, "pcm_toy"),
        Row("base", "pcm_toy_base"),
        Row("base + mix-up", "pcm_toy_no_weight"),
        Row("base + CLIP-weighted loss", "pcm_toy_no_mix"),
        Row(f"{PCM_NET}, 4 % of the patches at random", "pcm_toy_random_mix"),
        Row(f"{PCM_NET}, the paper's loss", "pcm_toy_paper_loss"),
        Row("CapDec", "capdec_toy"),
        Row("DeCap", "decap_toy"),
        *(
            Row(f"{PCM_NET}, {100 * share:.0f} % of the pairs", f"pcm_toy_pairs{100 * share:.0f}")
            for share in SHARES
        ),
    ]


_IN_DOMAIN = [
    *_with_heading("COCO", _systems("coco")),
    *_with_heading("Flickr30k", _systems("flickr30k")),
]

TABLES = {
    "in-domain": Table(
        "In-domain captions of real images",
        PAPER_SCORES,
        _IN_DOMAIN,
        "Our CapDec and DeCap have the encoder and decoder of PCM-Net and CLIP ViT-B/32; ViECap "
        "has its released settings (docs/paper_settings.md); SynTIC is a reconstruction.",
    ),
    "cross-domain": Table(
        "Cross-domain: weights of one data set, images and concepts of the other",
        PAPER_SCORES,
        [
            *_with_heading("COCO -> Flickr30k", _systems("coco", "flickr30k")),
            *_with_heading("Flickr30k -> COCO", _systems("flickr30k", "coco")),
        ],
        "The published concepts are the nouns of COCO for both data sets; import them for "
        "Flickr30k (docs/coco_and_flickr30k.md) to compare. Nouns of the captions of Flickr30k "
        "are target texts.",
    ),
    "target-text": Table(
        "Cross-domain with target texts",
        PAPER_SCORES,
        [
            *_with_heading("COCO -> Flickr30k", _with_target_texts("coco", "flickr30k_tt")),
            *_with_heading("Flickr30k -> COCO", _with_target_texts("flickr30k", "coco_tt")),
        ],
        "Not comparable with figures without target texts: PCM-Net takes its concepts and DeCap "
        "and SynTIC take their memory from the training captions of the target.",
    ),
    "nocaps": Table(
        "NoCaps validation, weights of COCO",
        NOCAPS_SCORES,
        [
            Row(f"{PCM_NET}, ViT-B/32", "pcm_coco", "nocaps"),
            Row(CAPDEC, "capdec_coco", "nocaps"),
            Row("DeCap", "decap_coco", "nocaps"),
            Row("ViECap", "prefix_text_coco", "nocaps"),
            Row("ViECap on synthetic images", "prefix_coco", "nocaps"),
            Row("ViECap on synthetic images, with PCM", "prefix_pcm_coco", "nocaps"),
            Row(
                "the same, with PCM in the form of its released code",
                "prefix_pcm_vse_coco",
                "nocaps",
            ),
        ],
        "Each domain is scored separately. The prompt of ViECap names entities of VinVL's list, "
        "which its repository releases.",
    ),
    "ablation": Table(
        "Effect of each part, COCO, ViT-L/14",
        PAPER_SCORES,
        [
            Row("base", "pcm_coco_vitl14_base"),
            Row("+ mix-up", "pcm_coco_vitl14_no_weight"),
            Row("+ CLIP-weighted loss", "pcm_coco_vitl14_no_mix"),
            Row("both (PCM-Net)", "pcm_coco_vitl14"),
            Row("both, 8 % of the patches at random", "pcm_coco_vitl14_random_mix"),
            Row("both, the paper's loss", "pcm_coco_vitl14_paper_loss"),
        ],
        "Rows with CLIP weights, except the last, have the released loss with its factor "
        "(1 - p)^2; rows without them have the released LabelSmoothing, which lacks this factor. "
        "The share of the random mix is ours: about five of 64 patches.",
    ),
    "data-efficiency": Table(
        "Share of the training pairs, COCO, ViT-B/32",
        PAPER_SCORES,
        [
            *(Row(f"{100 * share:.0f} %", f"pcm_coco_pairs{100 * share:.0f}") for share in SHARES),
            Row("100 %", "pcm_coco"),
        ],
        "Pairs are chosen by seed, and smaller sets are part of larger ones. As published, each "
        "row has as many iterations as 12 epochs of all pairs, and is validated 12 times.",
    ),
    "clip": Table(
        "PCM-Net by CLIP",
        PAPER_SCORES,
        [
            *(row for row in _IN_DOMAIN if PCM_NET in row.title),
            *_with_heading(
                "COCO",
                [
                    Row(f"{PCM_NET}, DFN ViT-B/16", "pcm_coco_dfn"),
                    Row(f"{PCM_NET}, EVA02-B/16", "pcm_coco_eva02"),
                    Row(f"{PCM_NET}, SigLIP 2 ViT-B/16", "pcm_coco_siglip2"),
                ],
            ),
        ],
    ),
    **{
        letter: Table(
            f"{title}, COCO, ViT-B/32",
            PAPER_SCORES,
            _rows_of_sweep(letter, values),
            "The values are ours; figures are published only for that of the paper.",
        )
        for letter, title, values in (
            ("K", "Concepts per image", TOP_CONCEPTS),
            ("M", "Patch-concept pairs that are mixed", NUM_PAIRS),
            ("w", "Scale of the CLIP weights", CLIP_WEIGHTS),
        )
    },
    "toy": Table(
        "The toy world",
        JAVA_FREE_SCORES,
        [
            *_with_heading("town", _toy_rows()),
            Row(f"town -> country: {PCM_NET}", "pcm_toy", "toy_country"),
        ],
        "Not comparable with figures of COCO or Flickr30k. One seed; docs/results.md has five. "
        "Rows with a share of the pairs have as many iterations as the others, within 7 %.",
    ),
}
"""The tables by name."""
