"""The paper's ablation in the toy world, with its lower and upper bounds, over several seeds.

    python tools/toyworld/ablation.py --seeds 5        (or: make ablation)
    python tools/toyworld/ablation.py --seeds 5 --arms base sync filter

Trains every arm with every seed, captions the real test images of both domains, and writes mean
and standard error into docs/results.md. Runs that are done are kept, so it can be stopped and
started again. The second command shows what refining the pairs does.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from demo import (
    CLIP,
    CONFIGS,
    DATA,
    KEEP_MEMORY,
    QUICK,
    QUICK_SIZES,
    SIZES,
    TARGETS,
    TOOLS,
    best_of,
    is_scored,
    is_trained,
    make_data,
    name_run,
    note_trained,
    run,
)
from report import Row, write_page
from tqdm import tqdm

WORK = Path("work_dirs/toy_ablation")
REAL_STORE = DATA / "town" / "real_store"
NO_MIX, NO_WEIGHT = "model.neck.mix=none", "model.loss.use_clip_weight=False"
PAIRS = "train_dataloader.dataset.pairs"
REAL = f"train_dataloader.dataset.store={REAL_STORE}"


@dataclass(frozen=True)
class Arm:
    """A row of the table: what it is called, its config and what it changes there."""

    title: str
    options: tuple[str, ...]
    config: str = "pcm_toy"


ARMS = {
    "text": Arm("text-only (CapDec's noise on the text feature)", (), "capdec_toy"),
    "base": Arm("base: synthetic pairs, no mix-up, no weights", (NO_MIX, NO_WEIGHT)),
    "mix": Arm("base + mix-up", (NO_WEIGHT,)),
    "weights": Arm("base + CLIP-weighted loss", (NO_MIX,)),
    "both": Arm("base + both (PCM-Net)", ()),
    "five": Arm("the same, mixing 5 patches as on COCO", ("model.neck.top_patches=5",)),
    "oracle": Arm("oracle: the base on real pairs", (NO_MIX, NO_WEIGHT, REAL)),
}
# Beside the paper's ablation: pairs that tools/refine.py chose.
REFINED = {
    method: Arm(title, (NO_MIX, NO_WEIGHT, f"{PAIRS}={DATA}/town/{method}/pairs.safetensors"))
    for method, title in (
        ("sync", "base, pairs refined by SynC"),
        ("filter", "base, the worst tenth of the pairs by CLIP score left out"),
    )
}
ALL = ARMS | REFINED
# Trained arms, tested with a change: the texts of the mix-up are not appended.
NO_TEXTS = "_no_texts"
PROBES = {"mix": "base + mix-up, its texts left out at inference"}


def tool(command: list[str], log: Path) -> None:
    """Run one of our tools on one thread, its output in a log."""
    environment = {**KEEP_MEMORY, **os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("a") as file:
        result = subprocess.run(
            [sys.executable, *command], stdout=file, stderr=subprocess.STDOUT, env=environment
        )
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: see {log}")


def options_of(name: str, seed: int, extra: Sequence[str]) -> list[str]:
    """The options of an arm's training."""
    return [*ALL[name].options, f"randomness.seed={seed}", *extra]


def config_of(name: str) -> Path:
    """The config of an arm."""
    return CONFIGS / f"{ALL[name].config}.py"


def claim(name: str, seed: int, extra: Sequence[str]) -> bool:
    """Whether a run is trained; its folder must not hold another one."""
    run_name = name_run(config_of(name), options_of(name, seed, extra))
    return is_trained(WORK / name / f"seed{seed}", run_name)


def run_arm(name: str, seed: int, extra: Sequence[str] = ()) -> None:
    """Train one arm with one seed and score it on both domains; does what is missing."""
    config, work = config_of(name), WORK / name / f"seed{seed}"
    log = work / "log.txt"
    if not claim(name, seed, extra):
        train = [f"{TOOLS}/train.py", str(config), "--resume", "--work-dir", str(work)]
        tool([*train, "--cfg-options", *options_of(name, seed, extra)], log)
        note_trained(work)
    best = best_of(work)
    for target, options in tests_of(name).items():
        folder = work / target
        changes = [*options, f"test_evaluator.outfile={folder}/captions.json"]
        if not is_scored(folder, config, changes, best):
            test = [f"{TOOLS}/test.py", str(config), best, "--work-dir", str(folder)]
            tool([*test, "--cfg-options", *changes], log)


def tests_of(name: str) -> dict[str, list[str]]:
    """The options of each test of an arm, by the test's folder."""
    arm = ALL[name]
    country = [f"test_dataloader.dataset.store={DATA}/country/test_store"]
    if arm.config == "pcm_toy":
        country.append(f"model.neck.concepts={DATA}/country/concepts.safetensors")
    tests = {"pcm_toy": [*arm.options], "pcm_toy_town2country": [*arm.options, *country]}
    if name in PROBES:
        no_texts = "model.neck.append_texts=False"
        tests |= {target + NO_TEXTS: [*tests[target], no_texts] for target in TARGETS.values()}
    return tests


def shown(asked: Sequence[str]) -> dict[str, Row]:
    """Rows of the tables: the paper's arms, and of the others those that were run."""
    others = [name for name in REFINED if name in asked or (WORK / name).is_dir()]
    rows = {}
    for name in [*ARMS, *others]:
        rows[name] = Row(ALL[name].title, name)
        if name in PROBES:
            rows[name + NO_TEXTS] = Row(PROBES[name], name, NO_TEXTS)
    return rows


def main() -> None:
    """Read the command line and run what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--arms", nargs="+", choices=list(ALL), default=list(ARMS))
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="at a time")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="forty captions and one epoch: whether it runs, not how well (use an empty folder)",
    )
    args = parser.parse_args()
    make_data(args.jobs, QUICK_SIZES if args.quick else SIZES)
    run(
        f"python {TOOLS}/extract.py {DATA}/town/images --captions {DATA}/town/captions_train.json "
        f"--model {CLIP} --out {REAL_STORE}"
    )
    for method in REFINED.keys() & set(args.arms):
        run(
            f"python {TOOLS}/refine.py {DATA}/town/train_store --method {method} "
            f"--out {DATA}/town/{method}"
        )
    extra = QUICK if args.quick else ()
    jobs = [(name, seed, extra) for seed in range(args.seeds) for name in args.arms]
    rows = shown(args.arms)
    for row in rows.values():
        for seed in range(args.seeds):
            if (WORK / row.arm / f"seed{seed}").exists():
                claim(row.arm, seed, extra)
    write = partial(write_page, WORK, rows, args.seeds)
    with ThreadPoolExecutor(args.jobs) as pool:
        try:
            for _ in tqdm(pool.map(lambda job: run_arm(*job), jobs), total=len(jobs), desc="runs"):
                write()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    print(f"written to {write()}")


if __name__ == "__main__":
    main()
