"""Run the toy world from captions to test scores, in the current folder.

    python benchmarks/toy_world.py                            # the sizes of pcm demo
    python benchmarks/toy_world.py --captions 500 --epochs 4  # shorter

The commands are those of `pcm demo --recipe toy`. They run in processes that are forked from this
one after the imports, so that slow imports are made only once. The last line is JSON: CIDEr by test
set.
"""

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from full_size_model import at_least

ROOT = Path(__file__).resolve().parents[1]

# A process that has initialized the CUDA driver cannot be forked; NVML does not initialize it.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

# The imports of the commands; none of them starts threads.
import diffusers  # noqa: E402, F401
import mmengine.runner  # noqa: E402, F401
import open_clip  # noqa: E402, F401

import pcm_plugin.evaluation  # noqa: E402
import pcm_plugin.models  # noqa: E402
import pcm_plugin.synthesis.generate  # noqa: E402, F401
from pcm_plugin import cli  # noqa: E402
from pcm_plugin.commands.processes import shell_command  # noqa: E402
from pcm_plugin.commands.toyworld import published_demo, steps  # noqa: E402


def run_forked(command: Sequence[object], done: Path | None = None, processes: int = 1) -> None:
    """Run a command of the demo in a fork of this process, unless its result exists.

    Args:
        command: Name of the command and its arguments.
        done: The file that the command writes.
        processes: Must be 1.

    Raises:
        SystemExit: If the command fails.
    """
    if done is not None and done.exists():
        return
    print(f"\n$ {shell_command(command, processes)}", flush=True)
    process = multiprocessing.get_context("fork").Process(
        target=cli.main, args=([str(word) for word in command],), daemon=False
    )
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"{command[0]} failed with exit code {process.exitcode}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    town = steps.SIZES["town"]
    parser.add_argument("--captions", type=at_least(20), default=town["train"])
    parser.add_argument("--epochs", type=at_least(1), help="default: those of configs/pcm_toy.py")
    args = parser.parse_args()
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    steps.run = published_demo.run = run_forked
    share = args.captions / town["train"]
    sizes = {
        domain: {
            split: max(round(count * share), min(count, 10)) for split, count in splits.items()
        }
        for domain, splits in steps.SIZES.items()
    }
    steps.make_data(1, sizes)
    options = () if args.epochs is None else (f"train_cfg.max_epochs={args.epochs}",)
    checkpoint = published_demo.train(options)
    found = zip(steps.TARGETS, published_demo.evaluate(checkpoint), strict=True)
    scores = {name.split()[0]: scores_of["CIDEr"] for name, scores_of in found}
    print(json.dumps({"captions": args.captions, "CIDEr": scores}))


if __name__ == "__main__":
    main()
