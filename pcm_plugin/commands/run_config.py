"""Config and setup of the commands that run a config."""

import argparse
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import is_cuda_available

from pcm_plugin.commands.build_commands import check_inputs
from pcm_plugin.commands.evaluation_names import folder_name
from pcm_plugin.commands.evaluations import apply_evaluation
from pcm_plugin.engine.checkpoints import register_safe_loader
from pcm_plugin.engine.config_checks import (
    check_config,
    check_evaluators,
    check_options,
    disable_worker_options,
)
from pcm_plugin.engine.config_files import read_config_file
from pcm_plugin.engine.distributed import start_group
from pcm_plugin.engine.feature_checks import check_caption_stores, check_features
from pcm_plugin.engine.inputs import drop_clip_head
from pcm_plugin.errors import UserError


def apply_cfg_options(cfg: Config, options: Mapping[str, Any] | None) -> None:
    """Override settings of a config, with a warning about settings that it does not have.

    Args:
        cfg: The config, changed in place.
        options: Parsed ``--cfg-options``; None for no option.

    Raises:
        UserError: If a setting cannot be set in the config.
    """
    options = options or {}
    for warning in check_options(cfg, options):
        print(f"warning: {warning}", file=sys.stderr)
    try:
        cfg.merge_from_dict(dict(options))
    except (KeyError, TypeError) as error:
        raise UserError(f"--cfg-options {' '.join(options)}: {error.args[0]}") from None


def load_config(
    args: argparse.Namespace, loops: Iterable[str], evaluation: str | None = None
) -> Config:
    """Return the final config of a command, with its input files checked.

    Args:
        args: Parsed arguments of :func:`add_run_arguments`.
        loops: Loops that will run: ``train``, ``val`` and ``test``.
        evaluation: Data set to test on in place of the config's own, one of
            :func:`pcm_plugin.commands.evaluation_names.list_evaluations`. Defaults to None.

    Returns:
        The config with the settings of the command line.

    Raises:
        MissingFileError: If the config or a file that it names does not exist.
        UserError: If the config cannot be read, an input file is incomplete or does not match the
            others, or a setting cannot work.
    """
    cfg = read_config_file(args.config)
    if evaluation is not None:
        apply_evaluation(cfg, evaluation)
    apply_cfg_options(cfg, args.cfg_options)
    if "train" not in loops:
        drop_clip_head(cfg)
    disable_worker_options(cfg)
    check_config(cfg, loops)
    check_caption_stores(cfg, loops)
    check_inputs(cfg, loops)
    check_evaluators(cfg, loops)
    check_features(cfg, loops)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    else:
        if cfg.get("work_dir") is None:
            cfg.work_dir = str(Path("work_dirs") / Path(cfg.filename).stem)
        if evaluation is not None:
            cfg.work_dir += f"/test/{folder_name(evaluation)}"
    return cfg


def prepare_process(args: argparse.Namespace, cfg: Config) -> None:
    """Set up this process for the runner: distributed group, determinism, safe loading."""
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    if is_cuda_available():
        # A resumed run is bit-identical to an uninterrupted one as far as CUDA has deterministic
        # kernels; torch warns about others. cuBLAS needs a workspace of fixed size and reads the
        # variable once.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        for loop in ("train", "val", "test"):
            # Overlaps the transfer of a batch with computation. It is not part of the config, whose
            # hash must not depend on the machine.
            loader = cfg.get(f"{loop}_dataloader")
            if loader is not None:
                loader.setdefault("pin_memory", True)
    start_group(args.launcher, cfg)
    register_safe_loader()
