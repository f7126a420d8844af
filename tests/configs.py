"""Configs by name, as the tests read them."""

import re
from collections.abc import Iterator

from mmengine.config import Config

from pcm_plugin.commands.evaluations import apply_evaluation
from pcm_plugin.engine.config_files import find_config

# Options of `configs/pcm_custom.py`, with which its training takes a second.
TINY = [
    "train_cfg.max_epochs=1",
    "param_scheduler.warmup=10",
    *(f"model.{part}.embed_dims=128" for part in ("neck", "encoder", "decoder")),
    *(f"model.{part}.num_layers=1" for part in ("encoder", "decoder")),
    *(f"{loop}_dataloader.num_workers=0" for loop in ("train", "val")),
]


def load_config(name: str, evaluation: str | None = None) -> Config:
    """Return a config, for the evaluation on another data set if one is named."""
    cfg = Config.fromfile(find_config(name))
    if evaluation is not None:
        apply_evaluation(cfg, evaluation)
    return cfg


def read_commands(message: str) -> Iterator[tuple[str, str]]:
    """Each missing file, and the command that makes it."""
    for part in message.split("  made by: ")[:-1]:
        command = message.split(part)[1].removeprefix("  made by: ").split("\n")[0]
        for path in re.findall(r"missing: (\S+)", part):
            yield path, command
