"""How fast images in shards become a feature store, beside the bare CLIP on tensors in memory.

    python benchmarks/extract.py

ViT-B/32 with random weights, painted images of 512 x 512 as tools/generate.py writes them, a
caption each; without what a run costs whatever the number of images. Bare is open_clip's own model
on the same batches: its image tower alone, and with its text tower, which reads all of its 77
tokens. On a CPU extraction works with one thread, so that any number of processes makes the same
features; so does the bare model here, and images are decoded on another core. The last line is
JSON.
"""

import argparse
import functools
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import open_clip
import torch
from made_up import write_images
from matrix import matrix_gflops, print_json
from safetensors.torch import save_file

from pcm_plugin.datasets.durable import write_json
from pcm_plugin.models.backbones import OpenCLIPBackbone
from pcm_plugin.synthesis import extract
from pcm_plugin.synthesis.sources import open_source


def write_clip(path: Path, name: str) -> str:
    """Save a CLIP of open_clip's sizes with random weights; give the name to load it by."""
    path.mkdir()
    torch.manual_seed(0)
    config = open_clip.get_model_config(name)
    save_file(open_clip.create_model(name).state_dict(), path / "open_clip_model.safetensors")
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    write_json(path / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": preprocess})
    return f"local-dir:{path}"


def seconds_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ViT-B-32-quickgelu")
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        name = write_clip(folder / "clip", args.model)
        write_images(folder / "images", args.images, args.side)
        source = open_source(folder / "images", None, 1000)
        backbone = OpenCLIPBackbone(name)
        pixels = torch.randn(args.batch, 3, *backbone.clip.visual.image_size)
        images = itertools.islice(source.read(source.shards[0]), args.batch)
        tokens = backbone.tokenizer([image.captions[0] for image in images])
        batches = args.images // args.batch

        def bare_image() -> None:
            for _ in range(batches):
                backbone.clip.encode_image(pixels)

        def bare_both() -> None:
            for _ in range(batches):
                backbone.clip.encode_image(pixels)
                backbone.clip.encode_text(tokens)

        def whole(store: Path) -> None:
            settings = extract.ExtractSettings(name)
            extract.extract(source, settings, store, args.batch, "cpu", args.workers)

        works: dict[str, list[float]] = {"image tower": [], "both towers": [], "extract": []}
        rates = []
        with (
            torch.inference_mode(),
            extract.steady_threads("cpu"),
            mock.patch.object(extract, "OpenCLIPBackbone", return_value=backbone),
        ):
            bare_both()
            for i in range(args.rounds):
                works["image tower"].append(batches * args.batch / seconds_of(bare_image))
                works["both towers"].append(batches * args.batch / seconds_of(bare_both))
                make = functools.partial(whole, folder / f"store{i}")
                # Again over the finished store is what it costs however many images there are.
                works["extract"].append(args.images / (seconds_of(make) - seconds_of(make)))
                rates.append(matrix_gflops())
            threads = torch.get_num_threads()
    found = {kind: statistics.median(values) for kind, values in works.items()}
    shares = {kind: found["extract"] / found[kind] for kind in ("image tower", "both towers")}
    for kind, value in found.items():
        print(f"{kind:12} {value:6.2f} images a second")
    print(f"extract is {100 * shares['both towers']:.0f} % of both towers")
    seconds, rate = args.batch / found["extract"], statistics.median(rates)
    print_json(
        {
            "gemm_gflop": seconds * rate,
            "seconds": seconds,
            "matrix_gflops": rate,
            "images_per_second": found,
            "share_of_bare": shares,
        },
        vars(args) | {"threads": threads},
    )


if __name__ == "__main__":
    main()
