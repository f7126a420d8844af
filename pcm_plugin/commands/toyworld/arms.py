"""The systems and settings that are compared in the toy world."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pcm_plugin.commands.evaluation_names import folder_name
from pcm_plugin.commands.paper_trainings import NO_MIX, NO_WEIGHT, share_of_pairs
from pcm_plugin.commands.toyworld.arm_features import FEATURES, MODES, TAUGHT_CLIP
from pcm_plugin.commands.toyworld.guidances import GUIDANCES
from pcm_plugin.commands.toyworld.steps import CLIP, DATA, GUIDANCE, SIZES, TARGETS
from pcm_plugin.engine.config_files import find_config

PAIRS = "train_dataloader.dataset.pairs"
REAL_STORE = DATA / "town" / "real_store"
BLIP_CLIP = f"model.vision_encoder.backbone.model_name={CLIP}"
PHOTO_COUNTS = (300, 3000)
"""Numbers of photos without captions, to which captions are assigned."""
# Endings of the folders of tests with changed settings.
NO_TEXTS = "_no_texts"
RERANK = "_rerank"
RANKS = "_ranks"
RANKS_TWO_CLIPS = "_ranks_two_clips"
VALIDATION = "_val"
_BACKBONE = (
    "model.backbone.type=pcm_plugin.OpenCLIPBackbone",
    f"model.backbone.model_name={CLIP}",
)
_RERANKED = (
    "model.decoding.beam_size=5",
    # Chosen on validation: docs/captioning.md.
    "model.decoding.rerank_weight=400",
    *_BACKBONE,
)
_RANKED = ("model.decoding.beam_size=10", "model.decoding.rerank=ranks", *_BACKBONE)


@dataclass(frozen=True)
class Variant:
    """A test of a trained captioner with changed settings.

    Attributes:
        title: Title of its row.
        options: Changes of the config, as for ``--cfg-options``.
        targets: Data sets, as for ``pcm test --eval-on``; None is the town.
    """

    title: str
    options: tuple[str, ...]
    targets: tuple[str | None, ...] = tuple(TARGETS.values())


@dataclass(frozen=True)
class Arm:
    """A training that is compared with others.

    Attributes:
        title: Title of its row.
        options: Changes of the config, as for ``--cfg-options``.
        config: Name of the config.
        variants: Tests of the same training with changed settings, each with a row, by the ending
            of their folders.
        features: Key of :data:`FEATURES`.
        refined: Method of ``pcm refine`` whose pairs are read; None for pairs as generated.
    """

    title: str
    options: tuple[str, ...] = ()
    config: str = "pcm_toy"
    variants: Mapping[str, Variant] = field(default_factory=dict)
    features: str = "plain"
    refined: str | None = None

    def needs_taught_clip(self, endings: Collection[str]) -> bool:
        """Whether the training or a test needs :data:`.TAUGHT_CLIP`."""
        return FEATURES[self.features].clip == TAUGHT_CLIP or RANKS_TWO_CLIPS in endings

    def config_options(self) -> tuple[str, ...]:
        """Return all changes of the config, with those that depend on features and pairs."""
        features = FEATURES[self.features]
        pairs = f"{PAIRS}={features.folder()}/{self.refined}/pairs.safetensors"
        return (
            *self.options,
            *features.config_options(),
            *((pairs,) if self.refined else ()),
        )


def _without_texts(title: str) -> dict[str, Variant]:
    return {NO_TEXTS: Variant(title, ("model.neck.append_text_tokens=False",))}


def _on(name: str, arm: Arm, features: str = "plain", refined: str | None = None) -> dict[str, Arm]:
    """Return an arm on other features or pairs, under the name that says so."""
    words = [name, *([refined] if refined else []), *([features] * (features != "plain"))]
    title = ", ".join(
        filter(None, (arm.title, "refined pairs" if refined else "", FEATURES[features].title))
    )
    changed = replace(arm, title=title, features=features, refined=refined, variants={})
    return {"_".join(words): changed}


def _reranked(title: str) -> dict[str, Variant]:
    return {RERANK: Variant(f"{title} + re-ranking by CLIP", _RERANKED)}


def _ranked(title: str) -> dict[str, Variant]:
    title += " + re-ranking by ranks, beam 10"
    second = f"model.decoding.rerank_clip={TAUGHT_CLIP}"
    return {
        RANKS: Variant(title, _RANKED),
        RANKS_TWO_CLIPS: Variant(f"{title}, two CLIPs", (*_RANKED, second)),
    }


_VALIDATED = {
    VALIDATION: Variant(
        "base, validation split", (f"test_dataloader.dataset.store={DATA}/town/val_store",), (None,)
    )
}
_SETTINGS = {
    "base": Arm(
        "base: synthetic pairs, no mix-up, no weights",
        (NO_MIX, *NO_WEIGHT),
        variants=_VALIDATED | _reranked("base") | _ranked("base"),
    ),
    "mix": Arm(
        "base + mix-up",
        NO_WEIGHT,
        variants=_without_texts("base + mix-up, no text tokens at inference"),
    ),
    "drop": Arm(
        "patch dropout: the same patches replaced by a learned token",
        (*NO_WEIGHT, "model.neck.mix=drop"),
    ),
    "weights": Arm("base + CLIP-weighted loss", (NO_MIX,)),
    "both": Arm(
        "base + both (PCM-Net)",
        variants=_reranked("PCM-Net"),
    ),
}
CLAIM = ("base", "mix", "weights", "both")
"""Settings whose comparison is the claim of the paper."""


@dataclass(frozen=True)
class Condition:
    """A condition under which the mix-up and patch dropout are compared with the base.

    Attributes:
        group: What is varied.
        title: Title of its row.
        ending: Ending of the names of its arms.
        base: Name of the arm that they are compared with.
        options: Changes of the config, in addition to those of the settings.
        features: Key of :data:`FEATURES`.
        value: Value of what is varied, if it is a number.
    """

    group: str
    title: str
    ending: str
    base: str
    options: tuple[str, ...] = ()
    features: str = "plain"
    value: int | None = None


_OTHER_SIZES = (300, 1000)
_OTHER_EPOCHS = (48,)
_OTHER_COUNTS = (("M", "num_pairs", (1, 2, 10)), ("K", "top_concepts", (1, 3, 10)))
CONDITIONS = (
    *(
        Condition(
            "patches",
            chosen.title,
            f"_{name}",
            # The base does not project the patches.
            "_".join(filter(None, ("base", chosen.subfolder))),
            features=name,
        )
        for name, chosen in FEATURES.items()
        if name != "plain"
    ),
    *(
        Condition(
            "training pairs",
            f"{size} pairs",
            f"_{size}",
            f"base_{size}",
            share_of_pairs(size / SIZES["town"]["train"], 16, 2),
            value=size,
        )
        for size in _OTHER_SIZES
    ),
    *(
        Condition(
            "epochs",
            f"{epochs} epochs",
            f"_{epochs}epochs",
            f"base_{epochs}epochs",
            (f"train_cfg.max_epochs={epochs}", f"train_cfg.val_interval={epochs // 8}"),
            value=epochs,
        )
        for epochs in _OTHER_EPOCHS
    ),
    *(
        Condition(
            letter,
            f"{letter} = {count}",
            f"_{letter}{count}",
            "base",
            (f"model.neck.{key}={count}",),
            value=count,
        )
        for letter, key, counts in _OTHER_COUNTS
        for count in counts
    ),
)
"""Conditions other than that of the config: plain patches, 3,000 pairs, 16 epochs, M = K = 5."""
COMPARED_SETTINGS = ("base", "mix", "drop")
"""Settings that are compared under each condition."""


def arms_under(condition: Condition) -> dict[str, Arm]:
    """Return the arms of a condition."""
    return {
        name + condition.ending: replace(
            _SETTINGS[name],
            title=f"{_SETTINGS[name].title}, {condition.title}",
            options=(*_SETTINGS[name].options, *condition.options),
            variants={},
            features=condition.features,
        )
        for name in COMPARED_SETTINGS
        if name + condition.ending == condition.base or name != "base"
    }


def guidance_folder(guidance: float) -> Path:
    """Return the folder of synthetic images, and of their features, with a guidance scale."""
    town = DATA / "town"
    return town if guidance == GUIDANCE else town / f"guidance_{guidance:g}"


def guidance_arm(guidance: float) -> str:
    """Return the name of the arm that is trained on images with a guidance scale."""
    return "base" if guidance == GUIDANCE else f"base_guidance_{guidance:g}"


def _of_guidance(guidance: float) -> Arm:
    base = _SETTINGS["base"]
    store = f"train_dataloader.dataset.store={guidance_folder(guidance)}/train_store"
    return replace(
        base, title=f"{base.title}, guidance {guidance:g}", options=(*base.options, store)
    )


@dataclass(frozen=True)
class Pool:
    """Images to which SynC assigns the captions of the town.

    The photos show other scenes of the town than those that the captions describe.

    Attributes:
        count: Number of photos.
        images: Value of ``pcm refine --pool-images``.
    """

    count: int
    images: str

    @property
    def name(self) -> str:
        """Ending of the names of its arms, and name of the folder of its pairs."""
        return f"photos_{self.count}" + ("_and_generated" if self.images == "all" else "")

    @property
    def folder(self) -> Path:
        """Folder of its pairs and their store."""
        return DATA / "town" / "pools" / self.name

    @property
    def photos(self) -> Path:
        """Folder of the photos and of their features."""
        return DATA / f"photos_{self.count}"

    def arm(self, base: Arm) -> Arm:
        """Return an arm that is trained on its pairs."""
        what = "photos and generated images" if self.images == "all" else "photos"
        return replace(
            base,
            title=f"{base.title}, captions assigned to {self.count:,} {what}",
            options=(
                *base.options,
                f"train_dataloader.dataset.store={self.folder}/store",
                f"{PAIRS}={self.folder}/pairs.safetensors",
            ),
            variants={},
        )


POOLS = {
    f"{name}_{pool.name}": (name, pool)
    for count in PHOTO_COUNTS
    for images in ("photos", "all")
    for pool in (Pool(count, images),)
    for name in ("base", "both")
}
"""Arms whose captions are assigned to photos: setting and pool by name."""


SEVERAL_IMAGES = 4
"""Images per caption of the recommended recipe."""
SEVERAL = DATA / "town" / "several"
"""Folder of several images per caption, of their features, and of pairs chosen from them."""
CHOICES: dict[str, tuple[object, ...]] = {
    "best": ("--method", "filter", "--pairs-per-caption", 1, "--keep", 1),
    "sync": ("--num-captions", 2 * SEVERAL_IMAGES, "--pairs-per-caption", 1),
}
"""Options of ``pcm refine`` that choose pairs from several images per caption."""
_AVERAGE = (
    "default_hooks.average.type=pcm_plugin.AverageWeightsHook",
    "default_hooks.average.epochs=1.0",
)
# About as many iterations as the recommended recipe asks for.
_LONG = ("train_cfg.max_epochs=48", "train_cfg.val_interval=6")
ROAD = {"base_best": "best", "base_several": "sync", "recommended": "sync"}
"""Arms that are trained on several images per caption: key of :data:`CHOICES` by name."""


def _on_several(name: str, title: str, options: tuple[str, ...] = ()) -> Arm:
    base, pairs = _SETTINGS["base"], SEVERAL / ROAD[name] / "pairs.safetensors"
    store = f"train_dataloader.dataset.store={SEVERAL}/train_store"
    all_options = (*base.options, *options, store, f"{PAIRS}={pairs}")
    variants = _reranked(title) | _ranked(title) if options else {}
    return Arm(title, all_options, variants=variants)


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
    **_SETTINGS,
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
    **{guidance_arm(g): _of_guidance(g) for g in GUIDANCES if g != GUIDANCE},
    **{key: arm for c in CONDITIONS for key, arm in arms_under(c).items()},
    **{
        key: arm
        for features in MODES
        for refined in (None, "sync")
        for name in CLAIM
        if refined or features != "plain"
        for key, arm in _on(name, _SETTINGS[name], features, refined).items()
    },
    "base_filter": Arm(
        "base, worst 10 % of the pairs by CLIP score dropped",
        (NO_MIX, *NO_WEIGHT),
        refined="filter",
    ),
    "base_average": replace(
        _SETTINGS["base"],
        title="base + average of the weights",
        options=(*_SETTINGS["base"].options, *_AVERAGE),
        variants={},
    ),
    "base_best": _on_several("base_best", "base, best of four images by CLIP score"),
    "base_several": _on_several("base_several", "base, SynC over four images per caption"),
    "recommended": _on_several(
        "recommended",
        "recommended: SynC over four images + average of the weights + 48 epochs",
        (*_AVERAGE, *_LONG),
    ),
    **{key: pool.arm(_SETTINGS[name]) for key, (name, pool) in POOLS.items()},
    "oracle": Arm(
        "oracle: the base on real pairs",
        (NO_MIX, *NO_WEIGHT, f"train_dataloader.dataset.store={REAL_STORE}"),
        variants=_reranked("oracle: the base on real pairs"),
    ),
    "oracle_48epochs": Arm(
        "oracle, 48 epochs",
        (NO_MIX, *NO_WEIGHT, f"train_dataloader.dataset.store={REAL_STORE}", *_LONG),
        variants=_reranked("oracle, 48 epochs") | _ranked("oracle, 48 epochs"),
    ),
}
ARMS["both_sync"] = replace(
    ARMS["both_sync"],
    variants=_reranked("PCM-Net, refined pairs"),
)


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


def list_tests(name: str, endings: Collection[str] | None = None) -> dict[str, ArmTest]:
    """Return the tests of an arm, by the name of the folder of their results.

    Args:
        name: Name of the arm.
        endings: Endings of the variants to test, ``""`` for the test without changed settings.
            Defaults to None, all.
    """
    arm = ARMS[name]
    tests: dict[str, ArmTest] = {}
    if endings is None or "" in endings:
        tests |= {
            folder_name(target): ArmTest(target, [*arm.config_options()])
            for target in TARGETS.values()
        }
    for suffix, variant in arm.variants.items():
        if endings is not None and suffix not in endings:
            continue
        tests |= {
            folder_name(target) + suffix: ArmTest(target, [*arm.config_options(), *variant.options])
            for target in variant.targets
        }
    return tests
