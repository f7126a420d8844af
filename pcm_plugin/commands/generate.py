"""Generate images of captions with a diffusion pipeline.

    pcm generate CAPTIONS --pipeline NAME_OR_FOLDER --out DIR
    torchrun --nproc_per_node 8 -m pcm_plugin generate CAPTIONS --pipeline NAME_OR_FOLDER --out DIR
    srun pcm generate CAPTIONS --pipeline NAME_OR_FOLDER --out DIR

After an interruption, run the command again to make the missing shards.
"""

import argparse
from dataclasses import fields

from pcm_plugin.commands.caption_arguments import (
    add_caption_arguments,
    caption_file,
    format_skipped,
)
from pcm_plugin.errors import plain_errors
from pcm_plugin.synthesis.generate.settings import IMAGE_FORMATS, GenerateSettings
from pcm_plugin.synthesis.ranks import Rank


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_caption_arguments(parser, format_option="--caption-format")
    parser.add_argument("--pipeline", required=True, help="name on the hub, or local folder")
    parser.add_argument("--out", required=True, help="folder for the image shards")
    parser.add_argument("--steps", type=int, help="denoising steps (default: the pipeline's)")
    parser.add_argument("--guidance", type=float, help="guidance scale (default: the pipeline's)")
    parser.add_argument("--size", type=int, help="height and width (default: the pipeline's)")
    parser.add_argument("--scheduler", help="diffusers class name (default: the pipeline's)")
    parser.add_argument("--negative-prompt", help="what the images should not look like")
    parser.add_argument(
        "--prompt",
        default="{}",
        help="prompt, with {} for the caption (default: the caption alone)",
    )
    parser.add_argument(
        "--lora", metavar="FILE", help="LoRA weights (.safetensors, or OWNER/NAME/FILE on the hub)"
    )
    parser.add_argument("--lora-scale", type=float, default=1.0, help="factor of the LoRA weights")
    parser.add_argument(
        "--textual-inversion",
        metavar="FILE",
        help="embedding of a token (as --lora), which the prompt must contain",
    )
    parser.add_argument("--images-per-caption", type=int, default=1)
    parser.add_argument(
        "--rephrasings",
        metavar="FILE",
        help="JSONL file of rephrased captions: the images of a caption are generated from the "
        "caption and from these texts in turn",
    )
    parser.add_argument(
        "--unique",
        action="store_true",
        help="generate one image for all captions of equal text, with the seed of the first",
    )
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard-size", type=int, default=250, help="captions per shard")
    parser.add_argument("--format", default="jpg", choices=IMAGE_FORMATS)
    parser.add_argument("--quality", type=int, default=95, help="for jpg and webp, 1 to 100")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", help="default: the GPU of this rank, or the CPU")
    parser.add_argument(
        "--offload", choices=["model", "sequential"], help="for GPUs with little memory"
    )
    parser.add_argument("--limit", type=int, help="use only the first LIMIT captions")
    return parser.parse_args()


@plain_errors()
def main() -> None:
    """Run the command."""
    args = parse_args()
    from pcm_plugin.formats.image_shards import count_captions
    from pcm_plugin.synthesis.generate.generate_images import generate_images

    settings = GenerateSettings(**{f.name: getattr(args, f.name) for f in fields(GenerateSettings)})
    first = Rank.from_environment().index == 0
    captions, report = caption_file(args)
    if first:
        print(report, flush=True)
    rephrasings = settings.load_rephrasings()
    if rephrasings is not None:
        rephrasings.check(captions)
    folder = generate_images(
        captions,
        settings,
        args.out,
        args.batch_size,
        args.device,
        args.limit,
        offload=args.offload,
    )
    if not first:
        return
    records = folder.shards.values()
    images, retried = (sum(record[key] for record in records) for key in ("count", "retried"))
    pairs = ""
    if settings.unique:
        captioned, without = count_captions(folder)
        pairs = f", for {captioned:,} captions"
        pairs += f"; {without:,} captions have no image" if without else ""
    print(f"{folder.path}: {images:,} images in {len(records)} shards{pairs}")
    if retried:
        print(f"{retried:,} were flagged, black or not finite, and were generated a second time")
    print(format_skipped(folder), end="")
