"""Trainings of the papers' tables: ablations, shares of the pairs, and sweeps of one setting."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Training:
    """A training from which rows take their weights.

    Attributes:
        config: Name of its config.
        options: Changes of the config in training and test, as for ``--cfg-options``.
    """

    config: str
    options: tuple[str, ...] = ()


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


def share_of_pairs(share: float, max_epochs: int, val_interval: int) -> tuple[str, ...]:
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
        f"{config}_pairs{100 * share:.0f}": Training(config, share_of_pairs(share, *epochs))
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
