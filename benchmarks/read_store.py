"""Measure reading a feature store in shuffled order, compared with compressed .npz files.

    python benchmarks/read_store.py --entries 200000 --folder FOLDER

Features are random and of the real shape (49 x 768, float16). Before a cold read the files are
dropped from the page cache; a warm read reads the same entries again. Rates are entries per second
of one process. Memory is the growth of that process, separately for anonymous memory and for mapped
files. The last line is JSON; its time is that of a warm batch of 32.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from gemm_timing import matrix_gflops, print_json
from synthetic_inputs import write_store
from tqdm import tqdm

from pcm_plugin.formats.feature_store import FeatureStore

PATCHES, WIDTH, JOINT = 49, 768, 512
SHARD = 1000
BATCH = 32


def features(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    patches = torch.randn(count, PATCHES, WIDTH, generator=generator).half()
    return patches, torch.nn.functional.normalize(torch.randn(count, JOINT, generator=generator))


def write_npz(path: Path, entries: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    patches, whole = features(SHARD, 0)
    for i in tqdm(range(entries), desc="write npz", unit="file"):
        if not (path / f"{i}.npz").exists():
            row = i % SHARD
            np.savez_compressed(
                path / f"{i}.npz", features=patches[row].numpy(), g_feature=whole[row, None].numpy()
            )


def drop_from_cache(path: Path) -> None:
    os.sync()
    for file in path.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def rate(read: Callable[[np.ndarray], object], order: np.ndarray) -> float:
    start = time.perf_counter()
    for i in order:
        read(i)
    return len(order) / (time.perf_counter() - start)


def memory() -> dict[str, float]:
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
    return {
        "anonymous_mb": int(sizes["RssAnon"]) / 1000,
        "mapped_mb": int(sizes["RssFile"]) / 1000,
    }


def read_store(path: Path, reads: int) -> dict[str, float]:
    store = FeatureStore(path)
    order = np.random.default_rng(0).permutation(len(store))[: reads // BATCH * BATCH]

    # Batches like those of a data loader, in the stored dtype like np.load.
    def read(batch: np.ndarray) -> object:
        patches, whole = (
            store.read_rows(key, batch, None) for key in ("patch_feats", "global_feats")
        )
        return patches, whole, [store.captions(int(i)) for i in batch]

    batches = order.reshape(-1, BATCH)
    before = memory()
    first = rate(read, batches) * BATCH
    again = rate(read, batches) * BATCH
    after = memory()
    return {
        "cold_per_second": first,
        "warm_per_second": again,
        **{f"{kind}_growth": after[kind] - before[kind] for kind in before},
    }


def disk_rate(path: Path, reads: int) -> float:
    """Return the MB/s of 16 threads that only read blocks of the size of a row."""
    size = PATCHES * WIDTH * 2
    files = [os.open(file, os.O_RDONLY) for file in sorted(path.glob("shard-*.safetensors"))]
    random = np.random.default_rng(1)
    chosen = random.integers(len(files), size=reads), random.integers(SHARD - 1, size=reads)

    def read(place: tuple[np.integer, np.integer]) -> int:
        return len(os.pread(files[place[0]], size, int(place[1]) * size))

    start = time.perf_counter()
    with ThreadPoolExecutor(16) as pool:
        total = sum(pool.map(read, zip(*chosen, strict=True)))
    return total / 1e6 / (time.perf_counter() - start)


def read_npz(path: Path, reads: int) -> dict[str, float]:
    order = np.random.default_rng(0).permutation(len(list(path.iterdir())))[:reads]

    def read(i: np.integer) -> object:
        with np.load(path / f"{i}.npz") as content:
            return content["features"], content["g_feature"]

    return {"cold_per_second": rate(read, order), "warm_per_second": rate(read, order)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--entries", type=int, default=200_000, help="number of entries of the store"
    )
    parser.add_argument("--npz", type=int, default=4_000, help="number of .npz files")
    parser.add_argument(
        "--reads", type=int, default=20_000, help="number of entries read from the store"
    )
    parser.add_argument("--folder", type=Path, required=True, help="where to write; not deleted")
    parser.add_argument("--only", choices=["store", "npz"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    paths = {"store": args.folder / "store", "npz": args.folder / "npz"}
    if args.only:
        reader = read_store if args.only == "store" else read_npz
        reads = args.reads if args.only == "store" else args.npz
        print(json.dumps(reader(paths[args.only], reads)))
        return
    patches, whole = features(SHARD, 0)
    # Generating 15 GB of random numbers would take longer than everything else.
    write_store(
        paths["store"],
        args.entries,
        SHARD,
        lambda s: (patches.roll(s, 0), whole.roll(s, 0), whole.roll(s, 0)),
    )
    write_npz(paths["npz"], args.npz)
    results = {}
    for kind, path in paths.items():
        drop_from_cache(path)
        # In a new process, so that its memory is that of a new worker.
        command = [sys.executable, __file__, "--only", kind, *sys.argv[1:]]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        results[kind] = json.loads(output.splitlines()[-1])
    drop_from_cache(paths["store"])
    results["disk"] = {"mb_per_second": disk_rate(paths["store"], args.reads)}
    results["times_npz"] = {
        key: results["store"][key] / results["npz"][key]
        for key in ("cold_per_second", "warm_per_second")
    }
    for kind, values in results.items():
        print(f"{kind:10}" + "  ".join(f"{key} {value:,.1f}" for key, value in values.items()))
    seconds, matrices = BATCH / results["store"]["warm_per_second"], matrix_gflops()
    of_a_batch = {"gemm_gflop": seconds * matrices, "seconds": seconds, "matrix_gflops": matrices}
    settings = {"entries": args.entries, "npz": args.npz, "reads": args.reads}
    print_json(of_a_batch | results, settings)


if __name__ == "__main__":
    main()
