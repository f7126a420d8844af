"""Run the benchmarks and write their table to docs/benchmarks.md.

    python benchmarks/run_all.py          # about 15 minutes; `make bench` runs this
    python benchmarks/run_all.py --dry    # print the commands

Each benchmark runs in a new process, one after the other. Other load on the machine affects the
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

from marked_page import read_marked, write_marked
from tqdm import tqdm

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- written by make bench -->", "<!-- end of what make bench wrote -->"

Result = dict[str, Any]


class Row(NamedTuple):
    """Row of the table.

    Attributes:
        title: First cell.
        command: Script and options; its last line is the result.
        target: Target of the figure, or an empty string.
        measured: Reads the figure from the result.
        lower_bound: Reads the lower bound from the result.
    """

    title: str
    command: str
    target: str
    measured: Callable[[Result], str]
    lower_bound: Callable[[Result], str] = lambda _: ""


def gemm(result: Result) -> str:
    """Return the figure in GEMM-GFLOP."""
    return f"{result['gemm_gflop']:.0f}"


def lower_bound(result: Result) -> str:
    """Return the number of operations in matrix products."""
    return f"{result['lower_bound_gflop']:.0f}"


def peak(result: Result) -> str:
    """Return the peak memory of a call."""
    return f"{result['peak_bytes'] / 1e6:.0f} MB"


def times_product(count: str, kind: str = "times_product") -> Callable[[Result], str]:
    """Return a function that reads the time of concept retrieval relative to its product."""
    return lambda result: f"{result['concepts'][count][kind]:.2f} x"


def startup(name: str) -> Callable[[Result], str]:
    """Return a function that reads the wall-clock time of a command."""
    return lambda result: f"{result['seconds_by_command'][name]['wall']:.2f} s"


TRAIN, BEAM, CONCEPTS = "train_step.py", "beam_search.py", "retrieve_concepts.py"
STORE = "read_store.py --entries 40000 --npz 2000 --folder {folder}"
ROWS = [
    Row("training iteration, captions of 8 to 14 words", TRAIN, "200", gemm, lower_bound),
    Row("the same, unoptimized", f"{TRAIN} --unoptimized", "", gemm, lower_bound),
    Row(
        "the same, bfloat16 autocast",
        f"{TRAIN} --amp --iterations 5",
        "130, where the CPU has it",
        gemm,
        lower_bound,
    ),
    Row("peak memory of a training iteration", TRAIN, "half of the next row", peak),
    Row("the same, unoptimized", f"{TRAIN} --unoptimized", "", peak),
    Row("beam 3, all 20 steps", BEAM, "165", gemm, lower_bound),
    Row("beam 3, captions of 8 to 14 words", f"{BEAM} --natural", "110", gemm, lower_bound),
    Row("greedy, all 20 steps", f"{BEAM} --beam 1", "80", gemm, lower_bound),
    Row(
        "extraction, relative to both towers of open_clip",
        "extraction.py",
        "90 %",
        lambda r: f"{100 * r['share_of_bare']['both towers']:.0f} %",
    ),
    Row(
        "the same, relative to the image tower",
        "extraction.py",
        "",
        lambda r: f"{100 * r['share_of_bare']['image tower']:.0f} %",
    ),
    Row(
        "feature store, shuffled reads relative to .npz, warm",
        STORE,
        "20 x",
        lambda r: f"{r['times_npz']['warm_per_second']:.1f} x",
    ),
    Row("the same, cold", STORE, "20 x", lambda r: f"{r['times_npz']['cold_per_second']:.1f} x"),
    Row(
        "shortest iteration that 4 data loader workers sustain",
        "data_loader.py",
        "below a GPU's",
        lambda r: f"{1e3 * r['seconds_per_sustained_iteration']:.1f} ms",
    ),
    Row(
        "retrieving the concepts of 32 images from 20,000, relative to the product",
        CONCEPTS,
        "1.2 x",
        times_product("20000"),
    ),
    Row("the same from 446", CONCEPTS, "1.2 x", times_product("446")),
    Row(
        "the same from 20,000, relative to the faster order of the product",
        CONCEPTS,
        "",
        times_product("20000", "times_faster_product"),
    ),
    Row(
        "the same from 446, relative to the faster order",
        CONCEPTS,
        "",
        times_product("446", "times_faster_product"),
    ),
    Row(
        "projecting 32 images onto 542,401 texts, relative to the products",
        "text_memory_projection.py",
        "",
        lambda r: f"{r['times_lower_bound']:.2f} x",
        lower_bound,
    ),
    Row("the same, peak memory in addition to the texts", "text_memory_projection.py", "", peak),
    Row(
        "CaptionMetric, relative to pycocoevalcap",
        "metric.py",
        "1 x",
        lambda r: f"{r['times_pycocoevalcap']:.2f} x",
    ),
    Row("`pcm --help`", "startup.py", "0.5 s", startup("pcm --help")),
    Row("`pcm caption --help`", "startup.py", "0.5 s", startup("pcm caption --help")),
    Row(
        "`pcm caption pcm-net_toy IMAGE`, until the caption",
        "startup.py",
        "3 s",
        startup("pcm caption"),
        startup("lower bound"),
    ),
]
SCALING = "scaling.py"


def run(command: str, folder: str) -> Result:
    """Run a benchmark and parse the last line of its output."""
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
    """Return the name of the CPU."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def table(results: dict[str, Result]) -> str:
    """Return the Markdown section of the page."""
    settings, versions = (next(iter(results.values()))[key] for key in ("settings", "versions"))
    threads = settings["threads"]
    rates = [r["matrix_gflops"] for r in results.values() if r["settings"]["threads"] == threads]
    lines = [
        f"{processor()}, {threads} threads, matrix rate {min(rates):.0f} to "
        f"{max(rates):.0f} GFLOP/s during the run; torch {versions['torch']}, Python "
        f"{versions['python']}.",
        "",
        "| benchmark | command | target | measured | lower bound |",
        "|---|---|---|---|---|",
    ]
    for row in ROWS:
        result, shown = results[row.command], row.command.replace("{folder}", "FOLDER")
        figures = (row.target, row.measured(result), row.lower_bound(result))
        cells = (row.title, f"`benchmarks/{shown}`", *figures)
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| cost of | varied size | values | slope |", "|---|---|---|---|"]
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
    parser.add_argument("--dry", action="store_true", help="only print the commands")
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
