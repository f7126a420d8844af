"""Train the model of a config.

python tools/train.py configs/pcm_coco.py [--resume] [--amp] [--cfg-options KEY=VALUE ...]
"""

import argparse
import sys
from pathlib import Path
from pickle import UnpicklingError

from mmengine.config import Config
from mmengine.device import is_cuda_available
from mmengine.runner import Runner

from pcm_plugin.datasets.coverage import VocabularyCoverageError
from pcm_plugin.engine.checkpoints import check_resumable, latest_checkpoint
from pcm_plugin.engine.command_line import add_run_arguments, load_config, prepare_process
from pcm_plugin.engine.inputs import check_same_inputs, identify_inputs
from pcm_plugin.registry import MODELS

# Where a checkpoint's message hub has the names, by content, of what it was trained on.
INPUTS = "inputs"


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Train the model of a config.")
    add_run_arguments(parser)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="go on from a checkpoint; without a value from the newest in the work folder, if any",
    )
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate with the total batch size, against auto_scale_lr's base",
    )
    return parser.parse_args()


def apply_options(cfg: Config, args: argparse.Namespace, inputs: dict[str, str]) -> None:
    """Write the options of this command into the config."""
    if args.amp:
        on_gpu = is_cuda_available()
        cfg.optim_wrapper.type = "AmpOptimWrapper" if on_gpu else "pcm_plugin.BFloat16OptimWrapper"
    if args.auto_scale_lr:
        if "base_batch_size" not in cfg.get("auto_scale_lr", {}):
            sys.exit(f"--auto-scale-lr: {args.config} has no auto_scale_lr.base_batch_size")
        cfg.auto_scale_lr.enable = True
    if args.resume is None:
        return
    checkpoint = latest_checkpoint(cfg.work_dir) if args.resume == "auto" else Path(args.resume)
    if checkpoint is None:
        print(f"--resume: no checkpoint in {cfg.work_dir} yet, starting from the beginning")
    elif not checkpoint.is_file():
        sys.exit(f"--resume: checkpoint {checkpoint} does not exist")
    else:
        model = MODELS.build(cfg.model)
        try:
            facts = check_resumable(checkpoint, model)
            if INPUTS in facts:
                check_same_inputs(facts[INPUTS], inputs, cfg)
        except (ValueError, RuntimeError, UnpicklingError) as error:
            sys.exit(f"--resume: {error}")
        cfg.resume, cfg.load_from = True, str(checkpoint)


def main() -> None:
    """Run the command."""
    args = parse_args()
    cfg = load_config(args, loops=("train", "val"))
    inputs = identify_inputs(cfg, ("train", "val"))
    apply_options(cfg, args, inputs)
    prepare_process(args, cfg)
    runner = Runner.from_cfg(cfg)
    runner.message_hub.update_info(INPUTS, inputs)
    try:
        runner.train()
    except VocabularyCoverageError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
