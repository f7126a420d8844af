"""Train and test all systems in the toy world, with several seeds.

    pcm results --seeds 5                     (or: make results)
    pcm results --seeds 5 --tables systems
    pcm results --seeds 5 --tables ablation --arms base sync filter

Every arm is trained with every seed and tested on the real images of both domains. Mean and
standard error are written into the tables of docs/results.md. Finished runs are kept, so the
command can be interrupted and started again.
"""

import argparse
import os
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from pcm_plugin.commands.processes import process_arguments, shell_command
from pcm_plugin.commands.toyworld.arms import ARMS, REAL_STORE, TABLES, arms_of, config_of, tests_of
from pcm_plugin.commands.toyworld.demo import (
    CAPTIONS,
    CLIP,
    DATA,
    KEEP_MEMORY,
    QUICK,
    QUICK_SIZES,
    SIZES,
    format_option,
    has_scores,
    is_trained,
    make_data,
    run,
)
from pcm_plugin.errors import UserError, plain_errors

WORK = Path("work_dirs/toy_results")
# MMEngine reloads pkg_resources when it reads a config that inherits from another package, which
# fails in two threads at once.
CONFIG_LOCK = threading.Lock()
TOWN = DATA / "town"
# Commands that make what some arms need in addition to the data of the demo.
EXTRACT_REAL: tuple[object, ...] = (
    *("extract", TOWN / "images", "--captions", CAPTIONS),
    *("--model", CLIP, "--out", REAL_STORE),
)


def _refine(method: str, *words: object) -> tuple[object, ...]:
    out = ("--out", TOWN / method, "--method", method)
    return ("refine", TOWN / "train_store", *out, *words)


def _build_language_model(kind: str) -> tuple[object, ...]:
    out = ("--kind", kind, "--out", TOWN / kind)
    return ("build-language-model", CAPTIONS, *out)


EXTRA_INPUTS: dict[str, tuple[object, ...]] = {
    "oracle": EXTRACT_REAL,
    "sync": _refine("sync"),
    "both_sync": _refine("sync"),
    "filter": _refine("filter"),
    "syntic": _refine("contrast", "--temperature", 0.03),
    **dict.fromkeys(
        ("prefix_text", "prefix", "prefix_patches", "prefix_pcm"), _build_language_model("gpt2")
    ),
    **dict.fromkeys(("blip", "blip_pcm"), _build_language_model("bert")),
}


def run_command(command: list[str], log: Path) -> None:
    """Run a command on one thread and append its output to a log."""
    environment = {**KEEP_MEMORY, **os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("a") as file:
        result = subprocess.run(
            process_arguments(command), stdout=file, stderr=subprocess.STDOUT, env=environment
        )
    if result.returncode:
        raise UserError(f"{shell_command(command)} failed: see {log}")


def options_of(name: str, seed: int, extra: Sequence[str]) -> list[str]:
    """Return the options of the training of an arm."""
    return [*ARMS[name].options, f"randomness.seed={seed}", *extra]


def is_arm_trained(name: str, seed: int, extra: Sequence[str]) -> bool:
    """Return whether an arm is trained with a seed; its folder must not hold another training."""
    work = WORK / name / f"seed{seed}"
    return is_trained(work, config_of(name), options_of(name, seed, extra))


def run_arm(name: str, seed: int, extra: Sequence[str] = ()) -> None:
    """Train an arm with a seed and test it on both domains, unless that is done."""
    config, work = config_of(name), WORK / name / f"seed{seed}"
    work.mkdir(parents=True, exist_ok=True)
    log = work / "log.txt"
    with CONFIG_LOCK:
        trained, tests = is_arm_trained(name, seed, extra), tests_of(name)
    if not trained:
        train = ["train", str(config), "--resume", "--work-dir", str(work)]
        run_command([*train, "--cfg-options", *options_of(name, seed, extra)], log)
    from pcm_plugin.engine.work_folder import require_best_checkpoint

    best = require_best_checkpoint(work)
    for target, test in tests.items():
        folder = work / target
        changes = [
            *test.options,
            format_option("test_evaluator.outfile", f"{folder}/captions.json"),
        ]
        with CONFIG_LOCK:
            scored = has_scores(folder, config, changes, best, test.evaluation)
        if not scored:
            command = ["test", str(config), best, "--work-dir", str(folder)]
            command += ["--eval-on", test.evaluation] if test.evaluation else []
            run_command([*command, "--cfg-options", *changes], log)


@plain_errors()
def main() -> None:
    """Read the command line and run what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument(
        "--arms", nargs="+", choices=list(ARMS), help="run only these arms of the tables"
    )
    parser.add_argument(
        "--jobs", type=int, default=min(2, os.cpu_count() or 1), help="number of parallel runs"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="40 captions and one epoch, to check that everything runs (use an empty folder)",
    )
    args = parser.parse_args()
    of_tables = dict.fromkeys(arm for table in args.tables for arm in arms_of(table))
    if unknown := set(args.arms or []) - of_tables.keys():
        raise UserError(f"--arms: {', '.join(args.tables)} has no {', '.join(sorted(unknown))}")
    arms = args.arms or list(of_tables)
    make_data(args.jobs, QUICK_SIZES if args.quick else SIZES)
    commands = [EXTRA_INPUTS[arm] for arm in arms if arm in EXTRA_INPUTS]
    if "ablation" in args.tables:  # its last table describes the real pairs too
        commands.append(EXTRACT_REAL)
    for command in dict.fromkeys(commands):
        run(command)
    extra = QUICK if args.quick else ()
    jobs = [(name, seed, extra) for seed in range(args.seeds) for name in arms]
    for name in ARMS:
        for seed in range(args.seeds):
            if (WORK / name / f"seed{seed}").exists():
                is_arm_trained(name, seed, extra)
    from tqdm import tqdm

    from pcm_plugin.commands.toyworld.report import write_page

    write = partial(write_page, WORK, args.seeds, args.tables)
    with ThreadPoolExecutor(args.jobs) as pool:
        try:
            for _ in tqdm(pool.map(lambda job: run_arm(*job), jobs), total=len(jobs), desc="runs"):
                write()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    print(f"written to {write()}")
