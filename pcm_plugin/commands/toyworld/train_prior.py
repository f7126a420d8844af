"""Train the toy world's CLIP and diffusion models.

    pcm train-prior --cache data/toy_prior

An interrupted stage resumes from its last checkpoint in the cache folder; finished stages are
skipped.
"""

import argparse
import logging
from pathlib import Path

from pcm_plugin.commands.argument_types import positive_integer
from pcm_plugin.errors import plain_errors
from pcm_plugin.toyworld import ASSETS

STAGES = ("web", "clip", "autoencoder", "diffusion")


@plain_errors()
def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("data/toy_prior"),
        help="folder of training data and checkpoints (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder to write the weights to")
    parser.add_argument(
        "--stages", nargs="+", choices=STAGES, default=STAGES, help="stages to run (default: all)"
    )
    parser.add_argument(
        "--pictures",
        type=positive_integer,
        default=40_000,
        help="pictures of the web (default: %(default)s)",
    )
    parser.add_argument(
        "--clip-steps",
        type=positive_integer,
        default=4000,
        help="training steps (default: %(default)s)",
    )
    parser.add_argument(
        "--autoencoder-steps",
        type=positive_integer,
        default=6000,
        help="training steps (default: %(default)s)",
    )
    parser.add_argument(
        "--diffusion-steps",
        type=positive_integer,
        default=16_500,
        help="training steps (default: %(default)s)",
    )
    parser.add_argument(
        "--threads", type=positive_integer, default=2, help="CPU threads (default: %(default)s)"
    )
    parser.add_argument(
        "--from-shipped",
        action="store_true",
        help="start from the weights in --out if the cache has no checkpoint",
    )
    args = parser.parse_args()
    import torch

    from pcm_plugin.toyworld.prior.tokenizer import train_tokenizer
    from pcm_plugin.toyworld.prior.web import build_web, load_web

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)

    build_web(args.cache / "web", args.pictures)
    web = load_web(args.cache / "web")
    clip_folder = args.out / "clip"
    if (clip_folder / "tokenizer.json").exists():
        from transformers import AutoTokenizer

        vocab_size = len(AutoTokenizer.from_pretrained(clip_folder))
    else:
        vocab_size = train_tokenizer((c for cs in web.captions for c in cs), clip_folder)

    if "clip" in args.stages:
        from pcm_plugin.toyworld.prior.clip import train_clip

        train_clip(
            web,
            clip_folder,
            args.cache / "clip.safetensors",
            vocab_size,
            args.clip_steps,
            args.from_shipped,
        )
    if "autoencoder" in args.stages or "diffusion" in args.stages:
        from transformers import AutoTokenizer

        from pcm_plugin.toyworld.prior import diffusion

        shipped = args.out / "diffusion" if args.from_shipped else None
        vae = diffusion.train_autoencoder(
            web, args.cache / "autoencoder.safetensors", args.autoencoder_steps, shipped
        )
        if "diffusion" in args.stages:
            latents = diffusion.encode_web(vae, web, args.cache / "latents.safetensors")
            tokenizer = AutoTokenizer.from_pretrained(clip_folder)
            patches = diffusion.encode_patches(clip_folder, web, args.cache / "patches.safetensors")
            model, scale = diffusion.train_diffusion(
                web,
                latents,
                patches,
                tokenizer,
                args.cache / "diffusion.safetensors",
                vocab_size,
                args.diffusion_steps,
                shipped,
            )
            diffusion.export(vae, model, scale, tokenizer, args.out / "diffusion")
