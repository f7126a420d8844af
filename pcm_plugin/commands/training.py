"""Training with the runner of MMEngine, from the options of ``pcm train``."""

import argparse
import sys
from pathlib import Path

from mmengine.config import Config
from mmengine.device import is_cuda_available
from mmengine.dist import get_world_size, is_main_process
from mmengine.runner import Runner

from pcm_plugin.commands.run_config import load_config, prepare_process
from pcm_plugin.engine.caption_metrics import captions_language
from pcm_plugin.engine.checkpoints import check_resumable, latest_checkpoint
from pcm_plugin.engine.distributed import stop_group
from pcm_plugin.engine.held_out import check_held_out
from pcm_plugin.engine.resume import ContinueRunHook, check_resume
from pcm_plugin.engine.run_record import RECORD, Record, record_run
from pcm_plugin.engine.schedules import (
    RunLength,
    base_rates,
    check_schedule,
    run_length,
    scale_to_batch,
)
from pcm_plugin.engine.work_folder import claim_run, lock_folder, mark_finished
from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.registry import MODELS


def apply_options(cfg: Config, args: argparse.Namespace) -> None:
    """Apply the options of this command to the config."""
    if args.amp:
        on_gpu = is_cuda_available()
        cfg.optim_wrapper.type = "AmpOptimWrapper" if on_gpu else "pcm_plugin.BFloat16OptimWrapper"
    if args.auto_scale_lr or (cfg.get("auto_scale_lr") or {}).get("enable"):
        scale_to_batch(cfg, get_world_size())
    if cfg.get("resume") and args.resume is None:  # by --cfg-options
        args.resume = cfg.get("load_from") or "auto"
        cfg.load_from = None


def measure_run(cfg: Config) -> RunLength:
    """Check data and schedule, and return the length of the training."""
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    if cfg.get("val_dataloader") is not None:
        # Its dataset checks its arguments.
        validation = Runner.build_dataloader(cfg.val_dataloader, seed=0).dataset
        check_held_out(loader.dataset, validation, captions_language(cfg, ["val"]))
    if not len(loader):
        pairs, batch = len(loader.dataset), cfg.train_dataloader.batch_size
        raise UserError(
            f"train_dataloader.drop_last=True leaves no batch: {pairs} pairs are fewer than a "
            f"batch of {batch} (train_dataloader.batch_size) for each of {get_world_size()} "
            "processes; set train_dataloader.drop_last=False or a smaller batch_size with "
            "--cfg-options"
        )
    length = run_length(cfg, len(loader))
    for warning in check_schedule(cfg, length):
        if is_main_process():
            print(f"warning: {warning}", file=sys.stderr)
    return length


def prepare_resume(cfg: Config, args: argparse.Namespace, run: Record, length: RunLength) -> None:
    """Set up the config to resume from the checkpoint of ``--resume``.

    Raises:
        MissingFileError: If the checkpoint does not exist.
        UserError: If the training cannot be resumed from it.
    """
    checkpoint = latest_checkpoint(cfg.work_dir) if args.resume == "auto" else Path(args.resume)
    if checkpoint is None:
        print(f"--resume: no checkpoint in {cfg.work_dir} yet, starting from the beginning")
        return
    if not checkpoint.is_file():
        raise MissingFileError(f"--resume: checkpoint {checkpoint} does not exist")
    model = MODELS.build(cfg.model)
    try:
        state = check_resumable(checkpoint, model)
        check_resume(state, checkpoint, cfg, run, length, base_rates(cfg, model))
    except UserError as error:
        raise UserError(f"--resume: {error}") from None
    known = state["message_hub"]["runtime_info"].get(RECORD)
    if known is not None and "load_from" in known["settings"]:
        # The initial weights of the run need not be given again.
        run["settings"]["load_from"] = known["settings"]["load_from"]
    cfg.resume, cfg.load_from = True, str(checkpoint)


def run_training(args: argparse.Namespace) -> None:
    """Train the model of the config with the options of the command line."""
    cfg = load_config(args, loops=("train", "val"))
    prepare_process(args, cfg)
    folder = Path(cfg.work_dir)
    with lock_folder(folder):
        apply_options(cfg, args)
        run = record_run(cfg, get_world_size())
        length = measure_run(cfg)
        if args.resume is not None:
            prepare_resume(cfg, args, run, length)
        claim_run(folder, run, Path(cfg.load_from) if cfg.get("resume") else None)
        runner = Runner.from_cfg(cfg)
        runner.register_hook(ContinueRunHook(run))
        runner.train()
        if is_main_process():
            mark_finished(folder)
        stop_group()
