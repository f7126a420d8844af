"""The paper's ablation in the toy world, with its lower and upper bounds, over several seeds.

    python tools/toyworld/ablation.py --seeds 5        (or: make ablation)
    python tools/toyworld/ablation.py --seeds 5 --arms base sync filter

Trains every arm with every seed, captions the real test images of both domains, and writes mean
and standard error into docs/results.md. Runs that are done are kept, so it can be stopped and
started again. The second command shows what refining the pairs does.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from demo import CLIP, CONFIGS, DATA, KEEP_MEMORY, TARGETS, TOOLS, make_data, run
from tqdm import tqdm

from pcm_plugin.toyworld.scene import Scene
from pcm_plugin.toyworld.truth import agreement
from pcm_plugin.toyworld.world import read_scenes

WORK = Path("work_dirs/toy_ablation")
PAGE = Path("docs/results.md")
START, END = "<!-- ablation table: tools/toyworld/ablation.py -->", "<!-- end of table -->"
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
    "text": Arm("text-only (CapDec's noise on the text feature)", (), "pcm_toy_text_only"),
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


def tool(command: list[str], log: Path) -> None:
    """Run one of our tools on one thread, its output in a log."""
    environment = {**KEEP_MEMORY, **os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("a") as file:
        result = subprocess.run(
            [sys.executable, *command], stdout=file, stderr=subprocess.STDOUT, env=environment
        )
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: see {log}")


def run_arm(name: str, seed: int, epochs: int | None) -> None:
    """Train one arm with one seed and score it on both domains; does what is missing."""
    arm = ALL[name]
    work = WORK / name / f"seed{seed}"
    work.mkdir(parents=True, exist_ok=True)
    log = work / "log.txt"
    options = [*arm.options, f"randomness.seed={seed}"]
    if epochs is not None:
        options.append(f"train_cfg.max_epochs={epochs}")
    if not (work / "trained").exists():
        train = [f"{TOOLS}/train.py", f"{CONFIGS}/{arm.config}.py", "--resume"]
        train += ["--work-dir", str(work)]
        tool([*train, "--cfg-options", *options], log)
        (work / "trained").touch()
    best = sorted(work.glob("best_*.pth"))[-1]
    for config in TARGETS.values():
        folder = work / config
        if (folder / "metrics.json").exists():
            continue
        changes = [*arm.options, f"test_evaluator.outfile={folder}/captions.json"]
        if config != "pcm_toy":
            changes.append(f"test_dataloader.dataset.store={DATA}/country/test_store")
            if arm.config == "pcm_toy":
                changes.append(f"model.neck.concepts={DATA}/country/concepts.safetensors")
        test = [f"{TOOLS}/test.py", f"{CONFIGS}/{arm.config}.py", str(best)]
        test += ["--work-dir", str(folder)]
        tool([*test, "--cfg-options", *changes], log)


def scores(name: str, config: str, metric: str) -> list[float]:
    """One score of an arm, over the seeds that are done."""
    files = sorted((WORK / name).glob(f"seed*/{config}/metrics.json"))
    return [json.loads(f.read_text())["metrics"][f"caption/{metric}"] for f in files]


def readings(name: str, config: str, truth: dict[str, Scene]) -> list[dict[str, float]]:
    """What an arm's captions say of their scenes, over the seeds that are done."""
    rows = []
    for file in sorted((WORK / name).glob(f"seed*/{config}/captions.json")):
        said = {row["image_id"]: row["caption"] for row in json.loads(file.read_text())}
        rows.append(agreement([said[image_id] for image_id in truth], list(truth.values())))
    return rows


def shown() -> dict[str, Arm]:
    """The arms of the paper, and of the others those that were run."""
    return ARMS | {name: arm for name, arm in REFINED.items() if (WORK / name).is_dir()}


def cell(values: list[float]) -> str:
    """Mean and standard error as the tables show them; one seed has no error."""
    if not values:
        return "-"
    mean, error = mean_and_error(values)
    return f"{mean:.1f}" if math.isnan(error) else f"{mean:.1f} ± {error:.1f}"


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Mean and standard error."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.mean(values), error


def table() -> str:
    """The table in Markdown, and the share of the gap that the full method closes."""
    metrics = ("BLEU-4", "ROUGE-L", "CIDEr")
    heads = [f"{m}, {n.split()[0]}" for n in TARGETS for m in metrics]
    lines = ["| | seeds | " + " | ".join(heads) + " |", "|---|---|" + "---|" * len(heads)]
    for name, arm in shown().items():
        cells, count = [], 0
        for config in TARGETS.values():
            for metric in metrics:
                values = scores(name, config, metric)
                count = len(values)
                cells.append(cell(values))
        lines.append(f"| {arm.title} | {count} | " + " | ".join(cells) + " |")
    lines += ["", *truth_table(), ""]
    for title, config in TARGETS.items():
        values = {n: scores(n, config, "CIDEr") for n in ("base", "both", "oracle", "text")}
        if all(len(v) > 1 for v in values.values()):
            base, both, oracle, text = (mean_and_error(v) for v in values.values())
            gap, gap_error = oracle[0] - base[0], math.hypot(oracle[1], base[1])
            gain, gain_error = both[0] - base[0], math.hypot(both[1], base[1])
            lines.append(
                f"- CIDEr, {title}: base is at {100 * base[0] / oracle[0]:.0f} % of the oracle, "
                f"gap {gap:.1f} ± {gap_error:.1f}; the full method gains {gain:+.1f} ± "
                f"{gain_error:.1f} over the base, {100 * gain / gap:.0f} % of the gap, and "
                f"{both[0] - text[0]:+.1f} ± {math.hypot(both[1], text[1]):.1f} over text-only."
            )
    return "\n".join(lines)


def truth_table() -> list[str]:
    """The lines of a second table: what the captions of the town say of their scenes."""
    truth = read_scenes(DATA / "town" / "scenes_test.jsonl")
    heads = ("named right", "found", "repeated", "colour right")
    lines = ["| town, % | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for name, arm in shown().items():
        rows = readings(name, "pcm_toy", truth)
        cells = [cell([row[head] for row in rows]) for head in heads]
        lines.append(f"| {arm.title} | " + " | ".join(cells) + " |")
    return lines


def write_page() -> None:
    """Put the table into docs/results.md, between its markers."""
    page = PAGE.read_text() if PAGE.exists() else f"# Results\n\n{START}\n{END}\n"
    head, rest = page.split(START)
    tail = rest.split(END)[1]
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(f"{head}{START}\n\n{table()}\n\n{END}{tail}")


def main() -> None:
    """Read the command line and run what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--arms", nargs="+", choices=list(ALL), default=list(ARMS))
    parser.add_argument("--epochs", type=int, help="default: the config's")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="at a time")
    args = parser.parse_args()
    make_data(args.jobs)
    run(
        f"python {TOOLS}/extract.py {DATA}/town/images --captions {DATA}/town/captions_train.json "
        f"--model {CLIP} --out {REAL_STORE}",
        REAL_STORE / "manifest.json",
    )
    for method in REFINED.keys() & set(args.arms):
        run(
            f"python {TOOLS}/refine.py {DATA}/town/train_store --method {method} "
            f"--out {DATA}/town/{method}",
            DATA / "town" / method / "pairs.safetensors",
        )
    jobs = [(name, seed, args.epochs) for seed in range(args.seeds) for name in args.arms]
    with ThreadPoolExecutor(args.jobs) as pool:
        for _ in tqdm(pool.map(lambda job: run_arm(*job), jobs), total=len(jobs), desc="runs"):
            write_page()
    print(table())


if __name__ == "__main__":
    main()
