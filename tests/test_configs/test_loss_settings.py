"""Value of the loss that each system trains with, compared with its sources."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config, DictAction

from pcm_plugin.commands.paper_tables import TABLES
from pcm_plugin.commands.paper_trainings import training_of
from pcm_plugin.commands.toyworld.arms import ARMS, config_of
from pcm_plugin.engine.config_files import find_config
from pcm_plugin.registry import MODELS

DATA = ("coco", "flickr30k", "toy")
PLAIN = [f"capdec_{data}" for data in DATA]
PLAIN += [f"prefix{kind}_{data}" for kind in ("", "_text") for data in ("coco", "toy")]
SMOOTHED = [f"{name}_{data}" for name in ("decap", "syntic") for data in DATA]
SMOOTHED += ["syntic_custom"]
UNWEIGHTED_ARMS = ["base", "mix", "drop", "base_sync", "base_filter", "oracle", "blip"]
UNWEIGHTED_ROWS = {"base", "+ mix-up", "town: base", "town: base + mix-up"}


def make_batch():
    generator = torch.Generator().manual_seed(0)
    targets = torch.tensor([[3, 1, 0], [2, 0, -1]])
    scores = torch.tensor([0.2, 0.7])  # weights far from 1
    return torch.randn(2, 3, 7, generator=generator), targets, scores


def smoothed(logits, targets):
    """Return the released LabelSmoothing: the mean KL divergence from the target over words."""
    valid = targets >= 0
    log_probs = logits[valid].log_softmax(-1)
    expected = torch.full_like(log_probs, 0.1 / (log_probs.shape[-1] - 1))
    expected.scatter_(1, targets[valid].unsqueeze(1), 0.9)
    return F.kl_div(log_probs, expected, reduction="none").sum(1).mean()


def loss_of(cfg, options=()):
    changes = dict(option.split("=", 1) for option in options)
    cfg.merge_from_dict({key: DictAction._parse_iterable(v) for key, v in changes.items()})
    logits, targets, scores = make_batch()
    loss = MODELS.build(cfg.model.loss)(logits, targets, scores)
    return loss, logits, targets


@pytest.mark.parametrize("name", PLAIN)
def test_capdec_and_viecap_train_with_plain_cross_entropy(name):
    loss, logits, targets = loss_of(Config.fromfile(find_config(name)))
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("name", SMOOTHED)
def test_decap_and_syntic_train_with_label_smoothing_alone(name):
    loss, logits, targets = loss_of(Config.fromfile(find_config(name)))
    torch.testing.assert_close(loss, smoothed(logits, targets))


@pytest.mark.parametrize("name", UNWEIGHTED_ARMS)
def test_unweighted_arms_have_the_released_unweighted_loss(name):
    # The config of BLIP inherits from mmpretrain, which may not be importable.
    path = config_of(name)
    if name == "blip":
        path = Path("configs/pcm_toy.py")
    options = [option for option in ARMS[name].options if option.startswith("model.loss.")]
    loss, logits, targets = loss_of(Config.fromfile(path), options)
    torch.testing.assert_close(loss, smoothed(logits, targets))


def test_unweighted_rows_of_the_ablation_have_the_released_unweighted_loss():
    rows = [
        row
        for row in (*TABLES["ablation"].rows, *TABLES["toy"].rows)
        if row.title in UNWEIGHTED_ROWS
    ]
    assert len(rows) == len(UNWEIGHTED_ROWS)
    for row in rows:
        training = training_of(row.training)
        cfg = Config.fromfile(find_config(training.config))
        loss, logits, targets = loss_of(cfg, training.options)
        torch.testing.assert_close(loss, smoothed(logits, targets))


def test_weighted_rows_keep_the_released_factor():
    for row in TABLES["ablation"].rows[2:4]:
        training = training_of(row.training)
        loss, logits, targets = loss_of(
            Config.fromfile(find_config(training.config)), training.options
        )
        assert loss < 0.9 * smoothed(logits, targets)
