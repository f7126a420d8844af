"""Measure how costs scale with batch, patches, vocabulary, beam, concepts and pairs.

    python benchmarks/scaling.py

One size is varied at a time; the others are those of the published ViT-B/32 model. The slope is the
exponent between the first and the last value: 1 is proportional growth, 0 is no growth. Figures of
the model are in GEMM-GFLOP (see gemm_timing.py), those of the store in seconds. The last line is
JSON; its figure is that of the published training iteration.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import beam_search
import torch
import train_step
from gemm_timing import figure_of, matrix_gflops, print_json, seconds_of
from synthetic_inputs import write_store

from pcm_plugin.datasets import SynthCaptionDataset

BATCHES, PATCHES, VOCABULARIES = (8, 16, 32, 64), (49, 98, 196), (2_550, 10_200, 40_800)
SIZES: dict[str, dict[str, tuple[int, ...]]] = {
    "training iteration": {
        "batch": BATCHES,
        "patches": PATCHES,
        "vocabulary": VOCABULARIES,
    },
    "captions of a batch": {
        "batch": BATCHES,
        "patches": PATCHES,
        "vocabulary": VOCABULARIES,
        "beam": (1, 2, 3, 5),
        "concepts": (446, 2_000, 20_000),
    },
}
PAIRS = (2_000, 20_000, 200_000)


def defaults(add: Callable[[argparse.ArgumentParser], None]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add(parser)
    return parser.parse_args([])


def model_figure(what: str, name: str, value: int, repeats: int) -> float:
    """Return the GEMM-GFLOP of an iteration or of a batch with one size changed."""
    is_training = what == "training iteration"
    args = defaults(train_step.add_arguments if is_training else beam_search.add_arguments)
    setattr(args, name, value)
    build: Any = train_step.build_step if is_training else beam_search.build_captioning
    return figure_of(build(args), repeats).gemm_gflop


def pairs_seconds(folder: Path, entries: int) -> tuple[float, float]:
    """Return the seconds to open a store of small features, and to read a shuffled batch."""
    features = torch.randn(10_000, 1, 8), torch.randn(10_000, 8), torch.randn(10_000, 8)
    write_store(folder, entries, 10_000, lambda _: features)
    start = time.perf_counter()
    dataset = SynthCaptionDataset(folder)
    opened = time.perf_counter() - start
    order = torch.randperm(entries).tolist()
    batches = iter([order[i : i + 32] for i in range(0, 1_600, 32)])
    return opened, seconds_of(lambda: dataset.__getitems__(next(batches)), 40, 5)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    rate = matrix_gflops()
    found = []

    def record(
        what: str, name: str, values: tuple[int, ...], costs: list[float], unit: str
    ) -> None:
        slope = math.log(costs[-1] / costs[0]) / math.log(values[-1] / values[0])
        row = {"what": what, "size": name, "values": values, "costs": costs, "unit": unit}
        found.append(row | {"slope": slope})
        taken = ", ".join(f"{v:,}: {c:.4g}" for v, c in zip(values, costs, strict=True))
        print(f"{what} by {name}: {taken} {unit}; slope {slope:.2f}", flush=True)

    for what, sizes in SIZES.items():
        for name, values in sizes.items():
            figures = [model_figure(what, name, value, args.repeats) for value in values]
            record(what, name, values, figures, "GEMM-GFLOP")
    with tempfile.TemporaryDirectory() as folder:
        columns = zip(*(pairs_seconds(Path(folder, str(n)), n) for n in PAIRS), strict=True)
        for what, column in zip(("opening a store", "reading a batch"), columns, strict=True):
            record(what, "pairs", PAIRS, list(column), "s")
    figure = found[0]["costs"][BATCHES.index(32)]
    published = {"gemm_gflop": figure, "seconds": figure / rate, "matrix_gflops": rate}
    print_json(published | {"scaling": found}, vars(args))


if __name__ == "__main__":
    main()
