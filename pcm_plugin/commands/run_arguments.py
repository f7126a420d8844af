"""Arguments of the commands that run a config."""

import argparse

from pcm_plugin.engine.cfg_options import CfgOptions


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``config`` and the options of both training and testing."""
    parser.add_argument("config", help="config file, or name of a config of this package")
    parser.add_argument(
        "--work-dir", help="folder for logs and checkpoints; default: work_dirs/NAME of the config"
    )
    parser.add_argument("--amp", action="store_true", help="mixed precision")
    add_config_options(parser)
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm"],
        default="none",
        help="launcher that started several processes; set by the .sh scripts",
    )
    # Passed by torch.distributed.launch, but not by torchrun.
    parser.add_argument("--local-rank", "--local_rank", type=int, default=0, help=argparse.SUPPRESS)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=CfgOptions,
        metavar="KEY=VALUE",
        help="override settings of the config, e.g. train_dataloader.batch_size=16",
    )
