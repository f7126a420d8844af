"""The tables of the papers, row by row: what is trained, what is tested, what is published.

Published figures are x 100 and stand as they were printed; where no figure is known there is none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

PCM = "Luo et al., ECCV 2024 (arXiv 2501.00437)"
SYNTIC = "Liu et al., AAAI 2024 (arXiv 2312.08865)"
CAPDEC = "Nukrai et al. 2022"
DECAP = "Li et al. 2023"
VIECAP = "Fei et al. 2023"
IFCAP = "Lee et al. 2024"
OURS = "PCM-Net"


@dataclass(frozen=True)
class Training:
    """A training that rows have their weights from.

    Attributes:
        config: Its config, by name.
        options: What it changes there, as for ``--cfg-options``; it is tested so too.
    """

    config: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        title: What it is called.
        training: Name of the training, None where this project has none.
        published: Figures by the table's columns.
        source: Where these are from.
        eval_on: Data set that it is tested on, as for ``tools/test.py --eval-on``; None for that
            of its config.
    """

    title: str
    training: str | None = None
    published: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    eval_on: str | None = None


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: What it shows.
        columns: Key of the metric by the column's head.
        rows: Its rows.
        remark: What a reader must know to compare.
    """

    title: str
    columns: Mapping[str, str]
    rows: Sequence[Row]
    remark: str = ""


FIVE = {name: f"caption/{name}" for name in ("BLEU-4", "METEOR", "ROUGE-L", "CIDEr", "SPICE")}
"""The scores of the papers."""
THREE = {name: FIVE[name] for name in ("BLEU-4", "ROUGE-L", "CIDEr")}
"""Those that need no Java."""
DOMAINS = {
    "CIDEr, in": "caption/in-domain/CIDEr",
    "CIDEr, near": "caption/near-domain/CIDEr",
    "CIDEr, out": "caption/out-domain/CIDEr",
    "CIDEr, overall": "caption/CIDEr",
}
"""NoCaps."""

NO_MIX = "model.neck.mix=none"
# The released loss without CLIP weights (LabelSmoothing) has no (1 - p)^2 factor either.
NO_WEIGHT = ("model.loss.use_clip_weight=False", "model.loss.gamma_type=none")
PAPER_LOSS = "model.loss.gamma_type=none"
SHARES = (0.1, 0.2, 0.4, 0.6, 0.8)
# The values are ours, around the config's own: no list of the paper's is known here.
K, M, W = (1, 3, 5, 7), (1, 3, 5, 10, 20), (1.0, 1.5, 2.5, 4.0, 6.0)
OWN = {"K5", "M5", "w2.5"}


def _random(share: float) -> tuple[str, str]:
    return "model.neck.mix=random", f"model.neck.top_patches={share}"


def _share(share: float, max_epochs: int, val_interval: int) -> tuple[str, ...]:
    """Train on a share of the pairs for as many iterations as on all of them.

    The pairs are passed ``1 / share`` times as often, 120 times where 12 epochs are taken of 10 %,
    and validated after as many iterations as otherwise.

    Args:
        share: The share.
        max_epochs: The config's own.
        val_interval: The config's own.
    """
    return (
        f"train_dataloader.dataset.max_pairs={share}",
        f"train_cfg.max_epochs={round(max_epochs / share)}",
        f"train_cfg.val_interval={val_interval / share:.8g}",
    )


TRAININGS = {
    "pcm_coco_vitl14_base": Training("pcm_coco_vitl14", (NO_MIX, *NO_WEIGHT)),
    "pcm_coco_vitl14_no_weight": Training("pcm_coco_vitl14", NO_WEIGHT),
    "pcm_coco_vitl14_no_mix": Training("pcm_coco_vitl14", (NO_MIX,)),
    # About as many patches as five pairs have at most, of 64 and of the toy world's 49 by two.
    "pcm_coco_vitl14_random_mix": Training("pcm_coco_vitl14", _random(0.08)),
    "pcm_coco_vitl14_paper_loss": Training("pcm_coco_vitl14", (PAPER_LOSS,)),
    "pcm_toy_base": Training("pcm_toy", (NO_MIX, *NO_WEIGHT)),
    "pcm_toy_no_weight": Training("pcm_toy", NO_WEIGHT),
    "pcm_toy_no_mix": Training("pcm_toy", (NO_MIX,)),
    "pcm_toy_random_mix": Training("pcm_toy", _random(0.04)),
    "pcm_toy_paper_loss": Training("pcm_toy", (PAPER_LOSS,)),
    **{
        f"{config}_pairs{100 * share:.0f}": Training(config, _share(share, *epochs))
        for config, epochs in {"pcm_coco": (12, 1), "pcm_toy": (16, 2)}.items()
        for share in SHARES
    },
    **{
        f"pcm_coco_K{k}": Training("pcm_coco", (f"model.neck.top_concepts={k}",))
        for k in K
        if f"K{k}" not in OWN
    },
    **{
        f"pcm_coco_M{m}": Training("pcm_coco", (f"model.neck.top_patches={m}",))
        for m in M
        if f"M{m}" not in OWN
    },
    **{
        f"pcm_coco_w{w}": Training("pcm_coco", (f"model.loss.clip_weight={w}",))
        for w in W
        if f"w{w}" not in OWN
    },
}
"""Trainings that change their config, by name; a config's own training has the config's name."""


def training_of(name: str) -> Training:
    """A training by its name."""
    return TRAININGS.get(name, Training(name))


def values(letter: str, values: Sequence[float]) -> list[Row]:
    """A row for each value of a setting; the config's own value is the config's own training."""
    names = {value: f"{letter}{value}" for value in values}
    return [
        Row(f"{letter} = {value:g}", "pcm_coco" if name in OWN else f"pcm_coco_{name}")
        for value, name in names.items()
    ]


def five(figures: str) -> dict[str, float]:
    """Figures as papers print them: B@4/METEOR/ROUGE-L/CIDEr/SPICE, ``-`` for none."""
    parts = zip(FIVE, figures.split("/"), strict=True)
    return {name: float(figure) for name, figure in parts if figure != "-"}


def domains(figures: str) -> dict[str, float]:
    """CIDEr on NoCaps: in/near/out/overall, ``-`` for none."""
    parts = zip(DOMAINS, figures.split("/"), strict=True)
    return {name: float(figure) for name, figure in parts if figure != "-"}


def cider(figure: float) -> dict[str, float]:
    """A published CIDEr alone."""
    return {"CIDEr": figure}


def on(data: str, *rows: Row) -> list[Row]:
    """Rows with the name of a data set before their titles."""
    return [replace(row, title=f"{data}: {row.title}") for row in rows]


IN_DOMAIN = [
    *on(
        "COCO",
        Row("CapDec (published: RN50x4)", "capdec_coco", five("26.4/25.1/51.8/91.8/-"), CAPDEC),
        Row("DeCap", "decap_coco", five("24.7/25.0/-/91.2/18.7"), DECAP),
        Row("ViECap", "prefix_text_coco", five("27.2/24.8/-/92.9/18.2"), VIECAP),
        Row(
            "SynTIC (ours: a reconstruction)",
            "syntic_coco",
            five("29.9/25.8/53.2/101.1/19.3"),
            SYNTIC,
        ),
        Row("IFCap", None, five("30.8/26.7/-/108.0/20.3"), IFCAP),
        Row(f"{OURS}, ViT-B/32", "pcm_coco", five("31.5/25.9/53.9/103.8/19.7"), PCM),
        Row(f"{OURS}, ViT-L/14", "pcm_coco_vitl14", five("33.6/26.9/55.4/113.6/20.8"), PCM),
    ),
    *on(
        "Flickr30k",
        Row(
            "CapDec (published: RN50x4)", "capdec_flickr30k", five("17.7/20.0/43.9/39.1/-"), CAPDEC
        ),
        Row("DeCap", "decap_flickr30k", five("21.2/21.8/-/56.7/15.2"), DECAP),
        Row("ViECap", "prefix_text_flickr30k", five("21.4/20.1/-/47.9/13.6"), VIECAP),
        Row(
            *("SynTIC (ours: a reconstruction)", "syntic_flickr30k"),
            *(five("22.3/22.4/47.3/56.6/16.6"), SYNTIC),
        ),
        Row("IFCap", None, five("23.5/23.0/-/64.4/17.0"), IFCAP),
        Row(f"{OURS}, ViT-B/32", "pcm_flickr30k", five("26.9/23.0/50.1/61.3/16.8"), PCM),
        Row(f"{OURS}, ViT-L/14", "pcm_flickr30k_vitl14", five("28.5/24.3/51.4/69.5/18.2"), PCM),
    ),
]

CROSS_DOMAIN = [
    *on(
        "COCO -> Flickr30k",
        Row(
            *("CapDec (published: RN50x4)", "capdec_coco", five("17.3/18.6/-/35.7/-"), VIECAP),
            eval_on="flickr30k",
        ),
        Row(
            *("DeCap", "decap_coco", five("16.3/17.9/-/35.7/11.1"), VIECAP),
            eval_on="flickr30k",
        ),
        Row(
            *("ViECap", "prefix_text_coco", five("17.4/18.0/-/38.4/11.2"), VIECAP),
            eval_on="flickr30k",
        ),
        Row(
            *("SynTIC (ours: a reconstruction)", "syntic_coco"),
            *(five("17.9/18.6/42.7/38.4/11.9"), SYNTIC),
            eval_on="flickr30k",
        ),
        Row(
            *(f"{OURS}, ViT-B/32", "pcm_coco", five("20.8/19.2/45.2/45.5/12.9"), PCM),
            eval_on="flickr30k",
        ),
        Row(
            *(f"{OURS}, ViT-L/14", "pcm_coco_vitl14", five("23.9/21.2/47.8/55.9/14.2"), PCM),
            eval_on="flickr30k",
        ),
    ),
    *on(
        "Flickr30k -> COCO",
        Row(
            *("CapDec (published: RN50x4)", "capdec_flickr30k", five("9.2/16.3/-/27.3/-"), VIECAP),
            eval_on="coco",
        ),
        Row(
            *("DeCap", "decap_flickr30k", five("12.1/18.0/-/44.4/10.9"), VIECAP),
            eval_on="coco",
        ),
        Row(
            *("ViECap", "prefix_text_flickr30k", five("12.6/19.3/-/54.2/12.5"), VIECAP),
            eval_on="coco",
        ),
        Row(
            *("SynTIC (ours: a reconstruction)", "syntic_flickr30k"),
            *(five("14.6/19.4/40.9/47.0/11.9"), SYNTIC),
            eval_on="coco",
        ),
        Row(
            *(f"{OURS}, ViT-B/32", "pcm_flickr30k", five("17.1/19.6/43.2/54.9/12.8"), PCM),
            eval_on="coco",
        ),
        Row(
            *(f"{OURS}, ViT-L/14", "pcm_flickr30k_vitl14", five("17.9/20.3/44.0/61.3/13.5"), PCM),
            eval_on="coco",
        ),
    ),
]

TARGET_TEXT = [
    *on(
        "COCO -> Flickr30k",
        Row(f"{OURS}, ViT-B/32", "pcm_coco", eval_on="flickr30k_tt"),
        Row("DeCap", "decap_coco", eval_on="flickr30k_tt"),
        Row("SynTIC (a reconstruction)", "syntic_coco", eval_on="flickr30k_tt"),
    ),
    *on(
        "Flickr30k -> COCO",
        Row(f"{OURS}, ViT-B/32", "pcm_flickr30k", eval_on="coco_tt"),
        Row("DeCap", "decap_flickr30k", eval_on="coco_tt"),
        Row("SynTIC (a reconstruction)", "syntic_flickr30k", eval_on="coco_tt"),
    ),
]

NOCAPS = [
    Row(f"{OURS}, ViT-B/32", "pcm_coco", eval_on="nocaps"),
    *(
        Row(title, f"{name}_coco", domains(figures), source, "nocaps")
        for title, name, figures, source in (
            ("CapDec (published: RN50x4)", "capdec", "60.1/50.2/28.7/45.9", VIECAP),
            ("DeCap", "decap", "65.2/47.8/25.8/45.9", VIECAP),
            ("ViECap", "prefix_text", "61.1/64.3/65.0/66.2", VIECAP),
            ("ViECap on synthetic images", "prefix", "-/-/-/70.5", PCM),
            ("ViECap on synthetic images, with PCM", "prefix_pcm", "-/-/-/74.7", PCM),
            ("the same, PCM in the form of its released code", "prefix_pcm_vse", "-/-/-/-", ""),
        )
    ),
]

ABLATION = [
    Row("base", "pcm_coco_vitl14_base", cider(108.9), PCM),
    Row("+ mix-up", "pcm_coco_vitl14_no_weight", cider(111.6), PCM),
    Row("+ CLIP-weighted loss", "pcm_coco_vitl14_no_mix", cider(112.0), PCM),
    Row("both (PCM-Net)", "pcm_coco_vitl14", cider(113.6), PCM),
    Row("both, 8 % of the patches at random", "pcm_coco_vitl14_random_mix"),
    Row("both, the paper's loss", "pcm_coco_vitl14_paper_loss"),
]

DATA_EFFICIENCY = [
    Row(f"{100 * share:.0f} %", f"pcm_coco_pairs{100 * share:.0f}", cider(figure), PCM)
    for share, figure in zip(SHARES, (88.0, 98.8, 101.6, 102.2, 102.8), strict=True)
] + [Row("100 %", "pcm_coco", cider(103.8), PCM)]

TOY = [
    *on(
        "town",
        Row(OURS, "pcm_toy"),
        Row("base", "pcm_toy_base"),
        Row("base + mix-up", "pcm_toy_no_weight"),
        Row("base + CLIP-weighted loss", "pcm_toy_no_mix"),
        Row(f"{OURS}, 4 % of the patches at random", "pcm_toy_random_mix"),
        Row(f"{OURS}, the paper's loss", "pcm_toy_paper_loss"),
        Row("CapDec", "capdec_toy"),
        Row("DeCap", "decap_toy"),
        *(
            Row(f"{OURS}, {100 * share:.0f} % of the pairs", f"pcm_toy_pairs{100 * share:.0f}")
            for share in SHARES
        ),
    ),
    *on("town -> country", Row(OURS, "pcm_toy", eval_on="toy_country")),
]

OWN_VALUES = "The values are ours, around the released one; no published figures are known."
TABLES = {
    "in-domain": Table(
        "In-domain captions of real images",
        FIVE,
        IN_DOMAIN,
        "Ours of CapDec and DeCap have PCM-Net's encoder and decoder and CLIP ViT-B/32; ViECap has "
        "its released settings (docs/paper_settings.md), SynTIC is reconstructed.",
    ),
    "cross-domain": Table(
        "Cross-domain: weights of one data set, images and concepts of the other",
        FIVE,
        CROSS_DOMAIN,
        "Concepts are those that the target's own config names. Published ones are COCO's nouns "
        "for either data set: import them there (docs/coco_and_flickr30k.md) to compare; nouns of "
        "the target's own captions are target texts.",
    ),
    "target-text": Table(
        "Cross-domain with target texts",
        FIVE,
        TARGET_TEXT,
        "Not to be set beside figures without target texts: the training captions of the target "
        "give PCM-Net's concepts, and the memory of DeCap and SynTIC.",
    ),
    "nocaps": Table(
        "NoCaps validation, weights of COCO",
        DOMAINS,
        NOCAPS,
        "Each domain is scored by itself. The prompt of ViECap names entities of VinVL's list, "
        "which its repository releases.",
    ),
    "ablation": Table(
        "What each part does, COCO, ViT-L/14",
        FIVE,
        ABLATION,
        "Rows with CLIP weights have the released loss and its (1 - p)^2 factor, except the last; "
        "rows without have the released LabelSmoothing, which has no such factor. The share of the "
        "random mix is ours: about five of 64 patches.",
    ),
    "data-efficiency": Table(
        "Share of the training pairs, COCO, ViT-B/32",
        FIVE,
        DATA_EFFICIENCY,
        "Pairs are chosen by seed, the smaller sets part of the larger ones. As published, each "
        "row has as many iterations as 12 epochs of all pairs, and is validated 12 times.",
    ),
    "clip": Table(
        "PCM-Net by CLIP",
        FIVE,
        [row for row in IN_DOMAIN if OURS in row.title]
        + on(
            "COCO",
            Row(f"{OURS}, DFN ViT-B/16", "pcm_coco_dfn"),
            Row(f"{OURS}, EVA02-B/16", "pcm_coco_eva02"),
            Row(f"{OURS}, SigLIP 2 ViT-B/16", "pcm_coco_siglip2"),
        ),
    ),
    "K": Table(
        "Concepts kept, COCO, ViT-B/32",
        FIVE,
        values("K", K),
        OWN_VALUES,
    ),
    "M": Table(
        "Patch-concept pairs mixed, COCO, ViT-B/32",
        FIVE,
        values("M", M),
        OWN_VALUES,
    ),
    "w": Table(
        "Scale of the CLIP weights, COCO, ViT-B/32",
        FIVE,
        values("w", W),
        OWN_VALUES,
    ),
    "toy": Table(
        "The toy world",
        THREE,
        TOY,
        "Not comparable with figures of COCO or Flickr30k. One seed: docs/results.md has five. "
        "Rows with a share of the pairs have as many iterations as the others, to within 7 %.",
    ),
}
"""The tables, by name."""
