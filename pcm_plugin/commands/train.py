"""Train the model of a config.

pcm train configs/pcm_coco.py [--resume] [--amp] [--cfg-options KEY=VALUE ...]
"""

import argparse

from pcm_plugin.commands.garbage_collection import paused_garbage_collection
from pcm_plugin.commands.run_arguments import add_run_arguments
from pcm_plugin.errors import plain_errors


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Train the model of a config.")
    add_run_arguments(parser)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="resume from a checkpoint; without a value from the newest in the work folder, if any",
    )
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale learning rate and warm-up by the ratio of the total batch size to "
        "auto_scale_lr.base_batch_size",
    )
    return parser.parse_args()


@plain_errors()
def main() -> None:
    """Run the command."""
    args = parse_args()
    with paused_garbage_collection():
        from pcm_plugin.commands.training import run_training

    run_training(args)
