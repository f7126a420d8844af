"""Run the benchmarks and write their table into docs/benchmarks.md.

    python benchmarks/run_all.py          # all of them, some 15 minutes; what `make bench` runs
    python benchmarks/run_all.py --dry    # print the commands

Each runs in a process of its own, one after the other; what else the machine does shows in the
figures.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from page import read_marked, write_marked
from tqdm import tqdm

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- written by make bench -->", "<!-- end of what make bench wrote -->"

Result = dict[str, Any]


class Row(NamedTuple):
    """A line of the table: figures are read from the command's last line."""

    what: str
    command: str
    bar: str
    now: Callable[[Result], str]
    floor: Callable[[Result], str] = lambda _: ""


def gemm(result: Result) -> str:
    """The figure in GEMM-GFLOP."""
    return f"{result['gemm_gflop']:.0f}"


def floor(result: Result) -> str:
    """The operations of its products."""
    return f"{result['floor_gflop']:.0f}"


def peak(result: Result) -> str:
    """Memory at the peak of a call."""
    return f"{result['peak_bytes'] / 1e6:.0f} MB"


def times_product(count: str, kind: str = "times_product") -> Callable[[Result], str]:
    """Concept detection beside its product alone."""
    return lambda result: f"{result['concepts'][count][kind]:.2f} x"


TRAIN, BEAM, CONCEPTS = "train_step.py", "beam_search.py", "concepts.py"
STORE = "store.py --entries 40000 --npz 2000 --folder {folder}"
ROWS = [
    Row("training iteration, captions of 8 to 14 words", TRAIN, "200", gemm, floor),
    Row("the same, straightforward", f"{TRAIN} --straightforward", "", gemm, floor),
    Row(
        "the same, bfloat16 autocast",
        f"{TRAIN} --amp --iterations 5",
        "130, where the CPU has it",
        gemm,
        floor,
    ),
    Row("memory of an iteration at its peak", TRAIN, "half of the next line", peak),
    Row("the same, straightforward", f"{TRAIN} --straightforward", "", peak),
    Row("beam 3, all 20 steps", BEAM, "165", gemm, floor),
    Row("beam 3, captions of 8 to 14 words", f"{BEAM} --natural", "110", gemm, floor),
    Row("greedy, all 20 steps", f"{BEAM} --beam 1", "80", gemm, floor),
    Row(
        "extraction, beside open_clip's two towers",
        "extract.py",
        "90 %",
        lambda r: f"{100 * r['share_of_bare']['both towers']:.0f} %",
    ),
    Row(
        "the same, beside the image tower alone",
        "extract.py",
        "",
        lambda r: f"{100 * r['share_of_bare']['image tower']:.0f} %",
    ),
    Row(
        "store, shuffled, beside .npz, warm",
        STORE,
        "20 x",
        lambda r: f"{r['times_npz']['warm_per_second']:.1f} x",
    ),
    Row("the same, cold", STORE, "20 x", lambda r: f"{r['times_npz']['cold_per_second']:.1f} x"),
    Row(
        "iteration that 4 workers of the loader feed",
        "loader.py",
        "below a GPU's",
        lambda r: f"{1e3 * r['seconds_an_iteration_fed']:.1f} ms",
    ),
    Row("concepts of 32 images among 20,000", CONCEPTS, "1.2 x", times_product("20000")),
    Row("concepts of 32 images among 446", CONCEPTS, "1.2 x", times_product("446")),
    Row(
        "among 20,000, beside the product's faster order",
        CONCEPTS,
        "",
        times_product("20000", "times_faster_product"),
    ),
    Row(
        "among 446, the same",
        CONCEPTS,
        "",
        times_product("446", "times_faster_product"),
    ),
    Row(
        "32 images onto a memory of 542,401 texts, beside its products",
        "projection.py",
        "",
        lambda r: f"{r['times_floor']:.2f} x",
        floor,
    ),
    Row("the same, memory at its peak beside the texts", "projection.py", "", peak),
    Row(
        "CaptionMetric, beside the scorers by hand",
        "metric.py",
        "1 x",
        lambda r: f"{r['times_by_hand']:.2f} x",
    ),
]
SCALING = "scaling.py"


def run(command: str, folder: str) -> Result:
    """Run a benchmark and read its last line."""
    name, *options = command.format(folder=folder).split()
    process = subprocess.run(
        [sys.executable, str(HERE / name), *options],
        capture_output=True,
        text=True,
        cwd=HERE.parent,
    )
    if process.returncode:
        sys.exit(f"{command} failed:\n{process.stderr[-2000:]}")
    return json.loads(process.stdout.splitlines()[-1])


def processor() -> str:
    """The CPU's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def table(results: dict[str, Result]) -> str:
    """Return the Markdown block of the results page."""
    settings, versions = (next(iter(results.values()))[key] for key in ("settings", "versions"))
    threads = settings["threads"]
    rates = [r["matrix_gflops"] for r in results.values() if r["settings"]["threads"] == threads]
    lines = [
        f"{processor()}, {threads} threads, products at {min(rates):.0f} to "
        f"{max(rates):.0f} GFLOP/s while it ran; torch {versions['torch']}, Python "
        f"{versions['python']}.",
        "",
        "| what | command | bar | now | floor |",
        "|---|---|---|---|---|",
    ]
    for row in ROWS:
        result, shown = results[row.command], row.command.replace("{folder}", "FOLDER")
        cells = (row.what, f"`benchmarks/{shown}`", row.bar, row.now(result), row.floor(result))
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| cost of | by | values | slope |", "|---|---|---|---|"]
    for row in results[SCALING]["scaling"]:
        values = ", ".join(
            f"{v:,}: {c:.3g}" for v, c in zip(row["values"], row["costs"], strict=True)
        )
        lines.append(
            f"| {row['what']} ({row['unit']}) | {row['size']} | {values} | {row['slope']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry", action="store_true", help="print the commands alone")
    args = parser.parse_args()
    commands = list(dict.fromkeys([*(row.command for row in ROWS), SCALING]))
    if args.dry:
        print("\n".join(f"python benchmarks/{command}" for command in commands))
        return
    read_marked(PAGE, BEGIN, END)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for command in (bar := tqdm(commands, unit="benchmark")):
            bar.set_description(command.partition(" --folder")[0])
            results[command] = run(command, folder)
    written = table(results)
    write_marked(PAGE, BEGIN, END, written)
    print(written)


if __name__ == "__main__":
    main()
