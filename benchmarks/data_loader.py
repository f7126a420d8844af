"""Measure the data loader of the published configs with a feature store in the page cache.

    python benchmarks/data_loader.py

Random features (49 x 768, float16) are read in shuffled order in batches of 32, with one thread.
The time without workers is that of one core. One worker adds the transfer between processes. The
four workers of the configs, each on its own core, sustain iterations of a quarter of that time. The
last line is JSON.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from full_size_model import BASE
from gemm_timing import matrix_gflops, print_json
from mmengine.config import Config
from mmengine.runner import Runner
from synthetic_inputs import write_store

import pcm_plugin.datasets  # noqa: F401  registers

PATCHES, WIDTH, JOINT = 49, 768, 512
SHARD = 1000


def seconds_per_batch(config: Any, batches: int) -> float:
    """Return the median time over groups of 20 batches, without the first group."""
    loader = Runner.build_dataloader(config, seed=0)
    given = itertools.chain.from_iterable(itertools.repeat(loader))
    taken = []
    for _ in range(batches // 20 + 1):
        start = time.perf_counter()
        for batch in itertools.islice(given, 20):
            assert len(batch["patch_feats"]) == len(batch["data_samples"])
        taken.append((time.perf_counter() - start) / 20)
    return statistics.median(taken[1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entries", type=int, default=8000)
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    config = Config.fromfile(BASE / "datasets" / "feature_store.py").train_dataloader
    config.batch_size = args.batch
    per_process = config.num_workers
    patches = torch.randn(SHARD, PATCHES, WIDTH).half()
    whole = torch.nn.functional.normalize(torch.randn(SHARD, JOINT))
    torch.set_num_threads(1)
    rate = matrix_gflops()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store")
        write_store(store, args.entries, SHARD, lambda _: (patches, whole, whole))
        config.dataset.store = str(store)
        seconds = {}
        for workers in (0, 1, 2):
            config.update(num_workers=workers, persistent_workers=workers > 0)
            seconds[workers] = seconds_per_batch(config, args.batches)
            print(
                f"{workers} workers: {1e3 * seconds[workers]:.2f} ms per batch, "
                f"{args.batch / seconds[workers]:,.0f} pairs per second"
            )
    sustained = seconds[1] / per_process
    print(f"{per_process} workers on a core each sustain iterations of {1e3 * sustained:.2f} ms")
    print_json(
        {
            "gemm_gflop": seconds[1] * rate,
            "seconds": seconds[1],
            "matrix_gflops": rate,
            "seconds_by_workers": seconds,
            "seconds_per_sustained_iteration": sustained,
        },
        {**vars(args), "workers_per_process": per_process},
    )


if __name__ == "__main__":
    main()
