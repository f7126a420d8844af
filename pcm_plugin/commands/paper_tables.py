"""Tables of the papers, row by row: what is trained, what it is tested on, what is published."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pcm_plugin.commands.config_files import list_configs
from pcm_plugin.commands.published import SCORES, PublishedResult, load_published

PCM_NET = "PCM-Net"
CAPDEC = "CapDec (published: RN50x4)"
SYNTIC = "SynTIC (ours: a reconstruction)"


@dataclass(frozen=True)
class Training:
    """A training from which rows take their weights.

    Attributes:
        config: Name of its config.
        options: Changes of the config in training and test, as for ``--cfg-options``.
    """

    config: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        title: Its title.
        training: Name of the training.
        eval_on: Data set that it is tested on, as for ``tools/test.py --eval-on``; None for that
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

NO_MIX = "model.neck.selection=none"
# The released loss without CLIP weights (LabelSmoothing) has no (1 - p)^2 factor either.
NO_WEIGHT = ("model.loss.use_clip_weight=False", "model.loss.gamma_type=none")
PAPER_LOSS = "model.loss.gamma_type=none"
SHARES = (0.1, 0.2, 0.4, 0.6, 0.8)
# Values around those of the paper. They are ours: no list of the paper's is known here.
TOP_CONCEPTS = (1, 3, 5, 7)
NUM_PAIRS = (1, 3, 5, 10, 20)
CLIP_WEIGHTS = (1.0, 1.5, 2.5, 4.0, 6.0)
PAPER_VALUES = {"K5", "M5", "w2.5"}


def _random_mix(share: float) -> tuple[str, str]:
    return "model.neck.selection=random", f"model.neck.random_ratio={share}"


def _share_of_pairs(share: float, max_epochs: int, val_interval: int) -> tuple[str, ...]:
    """Return the options to train on a share of the pairs with as many iterations as on all.

    The number of passes is divided by the share: 12 epochs become 120 for 10 % of the pairs. The
    number of iterations between validations stays the same as well.

    Args:
        share: The share.
        max_epochs: Number of epochs of the config.
        val_interval: Epochs between validations of the config.
    """
    return (
        f"train_dataloader.dataset.max_pairs={share}",
        f"train_cfg.max_epochs={round(max_epochs / share)}",
        f"train_cfg.val_interval={val_interval / share:.8g}",
    )


def _sweep(letter: str, key: str, values: Iterable[float]) -> dict[str, Training]:
    """Return a training per value of a setting, except the value of the config."""
    return {
        f"pcm_coco_{letter}{value}": Training("pcm_coco", (f"{key}={value}",))
        for value in values
        if f"{letter}{value}" not in PAPER_VALUES
    }


TRAININGS = {
    "pcm_coco_vitl14_base": Training("pcm_coco_vitl14", (NO_MIX, *NO_WEIGHT)),
    "pcm_coco_vitl14_no_weight": Training("pcm_coco_vitl14", NO_WEIGHT),
    "pcm_coco_vitl14_no_mix": Training("pcm_coco_vitl14", (NO_MIX,)),
    # About as many patches as the five best pairs have at most: of 64, and of two of the toy
    # world's 49.
    "pcm_coco_vitl14_random_mix": Training("pcm_coco_vitl14", _random_mix(0.08)),
    "pcm_coco_vitl14_paper_loss": Training("pcm_coco_vitl14", (PAPER_LOSS,)),
    "pcm_toy_base": Training("pcm_toy", (NO_MIX, *NO_WEIGHT)),
    "pcm_toy_no_weight": Training("pcm_toy", NO_WEIGHT),
    "pcm_toy_no_mix": Training("pcm_toy", (NO_MIX,)),
    "pcm_toy_random_mix": Training("pcm_toy", _random_mix(0.04)),
    "pcm_toy_paper_loss": Training("pcm_toy", (PAPER_LOSS,)),
    **{
        f"{config}_pairs{100 * share:.0f}": Training(config, _share_of_pairs(share, *epochs))
        for config, epochs in {"pcm_coco": (12, 1), "pcm_toy": (16, 2)}.items()
        for share in SHARES
    },
    **_sweep("K", "model.neck.top_concepts", TOP_CONCEPTS),
    **_sweep("M", "model.neck.num_pairs", NUM_PAIRS),
    **_sweep("w", "model.loss.clip_weight", CLIP_WEIGHTS),
}
"""Trainings that change their config, by name. The training of an unchanged config has its name."""


def training_of(name: str) -> Training:
    """Return the training with a name."""
    return TRAININGS.get(name, Training(name))


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
