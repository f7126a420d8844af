"""Train and test all systems in the toy world, with several seeds.

    pcm results                               (or: make results)
    pcm results --tables systems
    pcm results --tables ablation --arms base base_sync --seeds 3

Every arm is trained with every seed and tested on the real images of both domains. Its scores are
added to docs/results.jsonl, and mean and standard error are written into the tables of
docs/results.md. Runs that are in docs/results.jsonl with the present settings are not repeated, so
the command can be interrupted and continued on another machine. To repeat them, for example after a
change of the code, remove their lines and their folders in work_dirs/toy_results. With --arms, the
tables contain the other arms as they were tested before.
"""

import argparse
import os
import subprocess
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pcm_plugin.commands.argument_types import positive_integer
from pcm_plugin.commands.processes import process_arguments, shell_command
from pcm_plugin.commands.runs import has_scores, is_trained
from pcm_plugin.commands.toyworld.arm_features import TAUGHT_CLIP
from pcm_plugin.commands.toyworld.arms import ARMS, config_of, list_tests
from pcm_plugin.commands.toyworld.steps import (
    KEEP_MEMORY,
    QUICK,
    QUICK_SIZES,
    SIZES,
    TARGETS,
    make_data,
)
from pcm_plugin.commands.toyworld.tables import SEEDS, TABLES, arms_of, endings_of
from pcm_plugin.engine.cfg_options import format_option
from pcm_plugin.errors import MissingFileError, UserError, plain_errors

if TYPE_CHECKING:
    from pcm_plugin.commands.toyworld.records import Records

WORK = Path("work_dirs/toy_results")
DOMAINS = {target: name.split()[0] for name, target in TARGETS.items()}
"""Domain of the images of each evaluation."""
# MMEngine reloads pkg_resources when it reads a config that inherits from another package, which
# fails in two threads at once.
CONFIG_LOCK = threading.Lock()


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
    return [*ARMS[name].config_options(), f"randomness.seed={seed}", *extra]


def is_arm_trained(name: str, seed: int, extra: Sequence[str]) -> bool:
    """Return whether an arm is trained with a seed; its folder must not hold another training."""
    work = WORK / name / f"seed{seed}"
    return is_trained(work, config_of(name), options_of(name, seed, extra))


def run_arm(
    name: str, seed: int, extra: Sequence[str] = (), endings: Collection[str] = ("",)
) -> None:
    """Train an arm with a seed and test it on both domains, unless that is done.

    Args:
        name: Name of the arm.
        seed: Its seed.
        extra: Options of all trainings. Defaults to none.
        endings: Those of the tests, see :func:`.list_tests`.
    """
    config, work = config_of(name), WORK / name / f"seed{seed}"
    work.mkdir(parents=True, exist_ok=True)
    log = work / "log.txt"
    with CONFIG_LOCK:
        trained, tests = is_arm_trained(name, seed, extra), list_tests(name, endings)
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


def record_arm(name: str, seed: int, records: "Records", endings: Collection[str]) -> None:
    """Run an arm with a seed and add its scores to the records; see :func:`run_arm`."""
    from pcm_plugin.commands.toyworld.records import read_scores

    run_arm(name, seed, records.extra, endings)
    for target, test in list_tests(name, endings).items():
        folder = WORK / name / f"seed{seed}" / target
        records.add(name, seed, target, read_scores(folder, DOMAINS[test.evaluation]))


@plain_errors()
def main() -> None:
    """Read the command line and run what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    numbers = ", ".join(f"{count} for {table}" for table, count in SEEDS.items())
    parser.add_argument(
        "--seeds", type=positive_integer, help=f"number of seeds (default: {numbers})"
    )
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument(
        "--arms", nargs="+", choices=list(ARMS), help="run only these arms of the tables"
    )
    parser.add_argument(
        "--jobs",
        type=positive_integer,
        default=min(2, os.cpu_count() or 1),
        help="number of parallel runs",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="20 captions and one epoch, to check that everything runs (use an empty folder)",
    )
    args = parser.parse_args()
    of_tables = dict.fromkeys(arm for table in args.tables for arm in arms_of(table))
    if unknown := set(args.arms or []) - of_tables.keys():
        raise UserError(f"--arms: {', '.join(args.tables)} has no {', '.join(sorted(unknown))}")
    arms = args.arms or list(of_tables)
    endings = {name: endings_of(name, args.tables) for name in arms}
    taught = [name for name in arms if ARMS[name].needs_taught_clip(endings[name])]
    folder = Path(TAUGHT_CLIP.removeprefix("local-dir:"))
    if taught and not folder.is_dir():
        raise MissingFileError(
            f"no folder {folder}, which {', '.join(taught)} need: run the command in a checkout, "
            "or name other arms with --arms"
        )
    from pcm_plugin.commands.toyworld.records import RECORDS, Records
    from pcm_plugin.commands.toyworld.report import MIXUP_STORES, write_page

    extra = QUICK if args.quick else ()
    records = Records(RECORDS, extra)
    seeds = {table: args.seeds or SEEDS[table] for table in args.tables}
    seeds_of = {
        name: max(seeds[table] for table in args.tables if name in arms_of(table)) for name in arms
    }
    # Every arm with the first seed, then with the second, and so on.
    jobs = [
        (name, seed)
        for seed in range(max(seeds.values()))
        for name in arms
        if seed < seeds_of[name] and not records.has_run(name, seed, endings[name])
    ]
    measured = MIXUP_STORES if "ablation" in args.tables else ()
    if jobs or not all(map(records.has_measurement, measured)):
        make_data(args.jobs, QUICK_SIZES if args.quick else SIZES)
        from pcm_plugin.commands.toyworld.arm_inputs import make_inputs

        # The table of the mix-up describes the real pairs too.
        names = dict.fromkeys(name for name, _ in jobs)
        make_inputs([*names, *(["oracle"] if "ablation" in args.tables else [])], args.jobs)
    for name, seed in jobs:
        if (WORK / name / f"seed{seed}").exists():
            is_arm_trained(name, seed, extra)
    from tqdm import tqdm

    write = partial(write_page, records, seeds)
    with ThreadPoolExecutor(args.jobs) as pool:
        try:
            runs = pool.map(lambda job: record_arm(job[0], job[1], records, endings[job[0]]), jobs)
            for _ in tqdm(runs, total=len(jobs), desc="runs"):
                records.save()
                write()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    page = write()
    records.save()  # with the measurements of the page
    print(f"written to {page}")
