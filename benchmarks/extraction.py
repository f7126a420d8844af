"""Measure the extraction of features from image shards, relative to CLIP on tensors in memory.

    python benchmarks/extraction.py

The CLIP is ViT-B/32 with random weights; the images are random, 512 x 512, in the shards of
`pcm generate`, with one caption each. The fixed cost of a run is subtracted. The baseline is
open_clip's model on the same batches: the image tower, and both towers, where the text tower
processes all 77 tokens. On a CPU extraction uses one thread, so that the features do not depend on
the number of processes; so does the baseline, and images are decoded on another core. The last line
is JSON.
"""

import argparse
import functools
import itertools
import statistics
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import open_clip
import torch
from gemm_timing import matrix_gflops, print_json, seconds_of
from safetensors.torch import save_file
from synthetic_inputs import write_images

from pcm_plugin.formats.atomic_io import write_json
from pcm_plugin.models.backbones import OpenCLIPBackbone
from pcm_plugin.synthesis.extract import extract_features
from pcm_plugin.synthesis.extract.open_source import open_source
from pcm_plugin.synthesis.extract.settings import ExtractSettings


def write_clip(path: Path, name: str) -> str:
    """Write a CLIP of open_clip with random weights, and return its model name."""
    path.mkdir()
    torch.manual_seed(0)
    config = open_clip.get_model_config(name)
    save_file(open_clip.create_model(name).state_dict(), path / "open_clip_model.safetensors")
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    write_json(path / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": preprocess})
    return f"local-dir:{path}"


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the images per second of the image tower, of both towers, and of extraction."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        name = write_clip(folder / "clip", args.model)
        write_images(folder / "images", args.images, args.side, distinct=args.distinct)
        source = open_source(folder / "images", None, 1000)
        backbone = OpenCLIPBackbone(name, pool=args.pool).to(args.device)
        pixels = torch.randn(args.batch, 3, *backbone.clip.visual.image_size, device=args.device)
        images = itertools.islice(source.read(source.shards[0]), args.batch)
        tokens = backbone.tokenizer([image.captions[0] for image in images]).to(args.device)
        batches = args.images // args.batch

        def bare_image() -> None:
            backbone.clip.encode_image(pixels)

        def bare_both() -> None:
            backbone.clip.encode_image(pixels)
            backbone.clip.encode_text(tokens)

        def whole(store: Path) -> None:
            settings = ExtractSettings(name, pool=args.pool)
            extract_features.extract_features(
                source, settings, store, args.batch, args.device, args.workers
            )

        seconds = functools.partial(seconds_of, repeats=1, warm_up=0, device=args.device)
        works: dict[str, list[float]] = {"image tower": [], "both towers": [], "extract": []}
        rates = []
        with (
            torch.inference_mode(),
            extract_features.deterministic_cpu_threads(args.device),
            mock.patch.object(ExtractSettings, "load_clip", return_value=backbone),
        ):
            bare_both()
            for i in range(args.rounds):
                works["image tower"].append(args.batch / seconds(bare_image, calls=batches))
                works["both towers"].append(args.batch / seconds(bare_both, calls=batches))
                make = functools.partial(whole, folder / f"store{i}")
                # A second run over the finished store measures the fixed cost.
                works["extract"].append(args.images / (seconds(make) - seconds(make)))
                rates.append(matrix_gflops())
            threads = torch.get_num_threads()
    found = {kind: statistics.median(values) for kind, values in works.items()}
    shares = {kind: found["extract"] / found[kind] for kind in ("image tower", "both towers")}
    rate = statistics.median(rates)
    return {
        "gemm_gflop": args.batch / found["extract"] * rate,
        "seconds": args.batch / found["extract"],
        "matrix_gflops": rate,
        "images_per_second": found,
        "share_of_bare": shares,
        "threads": threads,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the settings of extraction."""
    parser.add_argument("--model", default="ViT-B-32-quickgelu")
    parser.add_argument("--pool", type=int, default=1)
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--distinct", type=int, help="number of different images; default: all")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    args = parser.parse_args()
    result = measure(args)
    for kind, value in result["images_per_second"].items():
        print(f"{kind:12} {value:6.2f} images per second")
    share = result["share_of_bare"]["both towers"]
    print(f"extraction reaches {100 * share:.0f} % of the rate of both towers")
    print_json(result, vars(args) | {"threads": result.pop("threads")})


if __name__ == "__main__":
    main()
