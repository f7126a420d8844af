"""Measure the encoding of captions alone, as `pcm make-dataset` does it with a text recipe.

    python benchmarks/encode_captions.py
    python benchmarks/encode_captions.py --captions Flickr8k.token.txt --count 2000
    python benchmarks/encode_captions.py --model ViT-L-14-quickgelu

The CLIP has its real size and random weights. Without a file, captions have 8 to 14 words. On a CPU
one process uses one thread, so that the features do not depend on the number of processes. The last
line is JSON; its figure is that of 1,000 captions.
"""

import argparse
import random
import statistics
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from extraction import write_clip
from gemm_timing import matrix_gflops, print_json, seconds_of

from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.models.backbones import OpenCLIPBackbone
from pcm_plugin.synthesis.extract.encode_captions import encode_captions
from pcm_plugin.synthesis.extract.settings import ExtractSettings
from pcm_plugin.synthesis.ranks import deterministic_cpu_threads

WORDS = [
    *("a", "the", "man", "dog", "girl", "red", "small", "old", "in", "on", "with"),
    *("runs", "sits", "holds", "ball", "grass", "water"),
]


def write_captions(path: Path, count: int) -> None:
    """Write captions of 8 to 14 random words."""
    rng = random.Random(0)
    lines = (" ".join(rng.choices(WORDS, k=rng.randint(8, 14))) for _ in range(count))
    path.write_text("\n".join(lines))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Encode the captions, and measure time and size per caption."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        name = write_clip(folder / "clip", args.model)
        path = args.captions
        if path is None:
            path = folder / "captions.txt"
            write_captions(path, args.count)
        captions, settings = CaptionFile(path, skip_invalid=True), ExtractSettings(name)
        backbone = OpenCLIPBackbone(name).to(args.device)

        def encode(store: str, count: int) -> None:
            encode_captions(captions, settings, folder / store, args.device, count)

        with (
            deterministic_cpu_threads(args.device),
            mock.patch.object(ExtractSettings, "load_clip", return_value=backbone),
        ):
            encode("warm-up", min(args.count, 256))
            # The product is timed around each round, since the speed of a shared machine varies.
            rounds = []
            rates = [matrix_gflops()]
            for i in range(args.rounds):
                rounds.append(seconds_of(lambda i=i: encode(f"store{i}", args.count), 1, 0))
                rates.append(matrix_gflops())
            threads = torch.get_num_threads()
        size = sum(file.stat().st_size for file in (folder / "store0").iterdir())
    around = [(a + b) / 2 for a, b in pairwise(rates)]
    rate = statistics.median(around)
    figure = statistics.median(s * r for s, r in zip(rounds, around, strict=True))
    figure *= 1000 / args.count
    return {
        "gemm_gflop": figure,
        "seconds": figure / rate,
        "matrix_gflops": rate,
        "bytes_per_caption": size / args.count,
        "threads": threads,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ViT-B-32-quickgelu")
    parser.add_argument("--captions", type=Path, help="caption file")
    parser.add_argument("--count", type=int, default=1000, help="number of captions to encode")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    result = measure(args)
    minutes, size = 100 * result["seconds"] / 60, result["bytes_per_caption"]
    print(
        f"{1000 / result['seconds']:.0f} captions per second and process, {size:.0f} bytes per "
        f"caption; 100,000 captions: {minutes:.1f} minutes of one process, {size / 10:.0f} MB"
    )
    print_json(result, vars(args) | {"threads": result.pop("threads")})


if __name__ == "__main__":
    main()
