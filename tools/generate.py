"""Make a synthetic image of each caption with a diffusers text-to-image pipeline.

    python tools/generate.py CAPTIONS --pipeline NAME_OR_FOLDER --out DIR
    torchrun --nproc_per_node 8 tools/generate.py CAPTIONS --pipeline NAME_OR_FOLDER --out DIR

Run again after an interruption, it makes the shards that are missing.
"""

import argparse

from pcm_plugin.plain_errors import plain_errors
from pcm_plugin.synthesis.generate import GenerateSettings, generate


def main() -> None:
    """Read the command line and generate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("captions", help="plain text, COCO captions JSON or JSONL")
    parser.add_argument("--pipeline", required=True, help="name on the hub, or local folder")
    parser.add_argument("--out", required=True, help="folder for the image shards")
    parser.add_argument("--steps", type=int, help="denoising steps (default: the pipeline's)")
    parser.add_argument("--guidance", type=float, help="guidance scale (default: the pipeline's)")
    parser.add_argument("--size", type=int, help="height and width (default: the pipeline's)")
    parser.add_argument("--scheduler", help="diffusers class name (default: the pipeline's)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard-size", type=int, default=1000, help="images a shard")
    parser.add_argument("--format", default="jpg", choices=["png", "jpg", "webp"])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", help="default: the GPU of this rank, else the CPU")
    parser.add_argument("--limit", type=int, help="take only the first captions")
    args = vars(parser.parse_args())
    work = {key: args.pop(key) for key in ("captions", "out", "batch_size", "device", "limit")}
    folder = generate(settings=GenerateSettings(**args), **work)
    images = sum(record["count"] for record in folder.shards.values())
    expected = folder.manifest["expected"]
    print(f"{folder.path}: {images} images in {len(folder.shards)} of {expected} shards")


if __name__ == "__main__":
    with plain_errors():
        main()
