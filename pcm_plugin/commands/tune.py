"""Choose the settings of the search on the validation split.

    pcm tune data/mine/config.py work_dirs/config/best_*.pth
    pcm tune data/mine/config.py captioner.safetensors --write captioner.safetensors

Every image is encoded once, and captions are searched once for each beam size and length penalty;
for each weight of re-ranking, the captions that were found are only ordered again. The settings
with the highest score are printed as options of pcm export, and with --write stored in a captioner
file, where pcm caption uses them.
"""

import argparse
from pathlib import Path

from pcm_plugin.commands.garbage_collection import paused_garbage_collection
from pcm_plugin.commands.run_arguments import add_config_options
from pcm_plugin.errors import plain_errors
from pcm_plugin.evaluation.names import MAIN_SCORES


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="config of the training, whose validation split is used")
    parser.add_argument("checkpoint", help=".pth of its run, or .safetensors of weights")
    parser.add_argument(
        "--rerank-weights",
        nargs="+",
        type=float,
        default=[0.0, 20.0, 50.0, 100.0, 200.0, 400.0],
        help="weights of re-ranking by CLIP (default: 0 20 50 100 200 400)",
    )
    parser.add_argument(
        "--ranks", action="store_true", help="try re-ranking by ranks too, which needs no weight"
    )
    parser.add_argument("--beam-sizes", nargs="+", type=int, default=[5], help="(default: 5)")
    parser.add_argument(
        "--length-penalties", nargs="+", type=float, help="(default: that of the config)"
    )
    parser.add_argument(
        "--metric",
        choices=MAIN_SCORES,
        default="CIDEr",
        help="score to maximize (default: %(default)s)",
    )
    parser.add_argument(
        "--write",
        type=Path,
        metavar="CAPTIONER",
        help="captioner file of pcm export to store the chosen settings in",
    )
    parser.add_argument("--out", type=Path, help="table to write: .json, .jsonl or .csv")
    parser.add_argument("--device", help="device, e.g. cuda:0 (default: a GPU if available)")
    add_config_options(parser)
    return parser.parse_args()


@plain_errors()
def main() -> None:
    """Run the command."""
    args = parse_args()
    with paused_garbage_collection():
        from pcm_plugin.commands.tuning import run_tuning

    run_tuning(args)
