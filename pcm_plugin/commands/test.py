"""Generate captions for the test split of a config and score them.

pcm test configs/pcm_coco.py work_dirs/pcm_coco/best_*.pth
pcm test configs/pcm_coco.py work_dirs/pcm_coco/best_*.pth --eval-on flickr30k
"""

import argparse

from pcm_plugin.commands.evaluation_names import list_evaluations
from pcm_plugin.commands.garbage_collection import paused_garbage_collection
from pcm_plugin.commands.run_arguments import add_run_arguments
from pcm_plugin.errors import plain_errors


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Score a checkpoint on the test split of a config."
    )
    add_run_arguments(parser)
    parser.add_argument(
        "--eval-on",
        choices=list_evaluations(),
        metavar="DATASET",
        help="data set to test on in place of the config's own, one of "
        f"{', '.join(list_evaluations())}; _tt: with target texts (docs/evaluation.md)",
    )
    parser.add_argument("checkpoint", help=".pth of a run, or .safetensors of weights")
    return parser.parse_args()


@plain_errors()
def main() -> None:
    """Run the command."""
    args = parse_args()
    with paused_garbage_collection():
        from pcm_plugin.commands.testing import run_test

    run_test(args)
