"""Measure the rate and the memory of the refinement of pairs at full size.

    python benchmarks/refine_pairs.py --entries 542401 --width 768 --seconds 300 --folder FOLDER

Runs `pcm refine` (SynC) in one process on a store of random global and caption features, and
stops it after the given time. It works in chunks of equal cost, so the rate of the first ones holds
for all. The peak memory is that of the process (VmHWM), including memory-mapped files of the store.
The last line is JSON.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from gemm_timing import matrix_gflops, print_json
from synthetic_inputs import write_store

from pcm_plugin.commands.processes import process_arguments

SHARD = 10_000
STEPS = ("captions-of-images", "images-of-captions")


def features(shard: int, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(shard)
    texts = torch.nn.functional.normalize(torch.randn(SHARD, width, generator=generator))
    noise = torch.randn(SHARD, width, generator=generator) / width**0.5
    pictures = torch.nn.functional.normalize(texts + 2 * noise)
    # Patches are not read, so one small patch is enough.
    return torch.zeros(SHARD, 1, 8).half(), pictures.half(), texts.half()


def peak_mb(process: subprocess.Popen) -> float:
    status = Path(f"/proc/{process.pid}/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1000
    return 0.0


def matrix_rate(chunk: int, width: int) -> float:
    """Return the GFLOP/s of the products on one thread, as in the command on a CPU."""
    torch.set_num_threads(1)
    one = torch.randn(chunk, width)
    start = time.perf_counter()
    for _ in range(3):
        one @ one.T
    return 3 * 2 * chunk**2 * width / 1e9 / (time.perf_counter() - start)


def rows_done(out: Path) -> dict[str, int]:
    manifest = out / "manifest.json"
    shards = json.loads(manifest.read_text())["shards"] if manifest.exists() else {}
    return {s: sum(r["count"] for n, r in shards.items() if n.startswith(s)) for s in STEPS}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entries", type=int, default=542_401)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--chunk", type=int, default=8192)
    parser.add_argument("--folder", type=Path, required=True, help="where to write; not deleted")
    args = parser.parse_args()
    store = args.folder / f"store_{args.entries}_{args.width}"
    write_store(store, args.entries, SHARD, lambda shard: features(shard, args.width))
    out = args.folder / f"pairs_{time.strftime('%Y%m%d_%H%M%S')}"
    command = ["refine", store, "--out", out, "--chunk", args.chunk]
    process = subprocess.Popen(process_arguments(command))
    start, memory = time.perf_counter(), 0.0
    first: dict[str, tuple[float, int]] = {}
    last: dict[str, tuple[float, int]] = {}
    running = True
    while running and time.perf_counter() - start < args.seconds:
        time.sleep(0.2)
        running = process.poll() is None
        memory = max(memory, peak_mb(process))
        now = time.perf_counter()
        for step, rows in rows_done(out).items():
            if rows and rows != last.get(step, (0.0, 0))[1]:
                first.setdefault(step, (now, rows))
                last[step] = (now, rows)
    finished = not running
    process.kill()
    if process.wait() and finished:
        sys.exit("`pcm refine` failed")
    # From the end of the first chunk, so that imports are not included.
    rates = {
        step: (rows - first[step][1]) / (when - first[step][0])
        for step, (when, rows) in last.items()
        if rows > first[step][1]
    }
    hours = {step: args.entries / rate / 3600 for step, rate in rates.items()}
    products, seconds = matrix_gflops(), 3600 * sum(hours.values())
    result = {
        # For all rows of the steps that have been run.
        "gemm_gflop": seconds * products,
        "seconds": seconds,
        "matrix_gflops": products,
        "own_products_gflops": matrix_rate(args.chunk, args.width),
        "rows_per_second": rates,
        "hours_for_all": hours,
        "peak_mb": memory,
        "finished": finished,
    }
    for step, rate in rates.items():
        print(f"{step}: {rate:,.0f} rows per second, {hours[step]:.2f} hours for {args.entries:,}")
    print(f"{memory:,.0f} MB peak memory")
    print_json(result, {k: v for k, v in vars(args).items() if k != "folder"})


if __name__ == "__main__":
    main()
