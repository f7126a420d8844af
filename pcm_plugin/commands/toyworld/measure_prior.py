"""Measure the toy world's CLIP and diffusion models.

    pcm measure-prior --cache data/toy_prior

On unseen scenes, CLIP is measured by text-to-image retrieval, concept recall, the accuracy of
patches with each patch mode, and the cosines of images and captions. The diffusion model is
measured by the share of the things named in a caption that a classifier finds in the image, by four
tasks of GenEval, and by its CLIP scores, compared with those of random and real pairs. The
classifier (judge) is trained at the first run, in the cache folder; its threshold is that of equal
precision and recall on real pictures.

With the packaged CLIP, a captioner of the class token (DeCap) is also tested on the mean of the
patches. It is trained on the data of `pcm demo --recipe toy`, which is made at the first run.
"""

import argparse
import json
from pathlib import Path

from pcm_plugin.commands.argument_types import positive_integer
from pcm_plugin.commands.toyworld.guidances import GUIDANCES
from pcm_plugin.errors import MissingFileError, plain_errors
from pcm_plugin.formats.atomic_io import content_id
from pcm_plugin.toyworld import ASSETS


@plain_errors()
def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--clip", type=Path, default=ASSETS / "clip", help="folder of the CLIP model"
    )
    parser.add_argument(
        "--diffusion", type=Path, default=ASSETS / "diffusion", help="folder of the diffusion model"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("data/toy_prior"),
        help="folder of `pcm train-prior` (default: %(default)s)",
    )
    parser.add_argument(
        "--count",
        type=positive_integer,
        default=600,
        help="number of synthetic images (default: %(default)s)",
    )
    parser.add_argument(
        "--steps", type=positive_integer, default=12, help="diffusion steps (default: %(default)s)"
    )
    parser.add_argument(
        "--guidance",
        type=float,
        nargs="+",
        default=GUIDANCES,
        help="guidance scales (default: %(default)s)",
    )
    parser.add_argument(
        "--processes",
        type=positive_integer,
        default=2,
        help="processes that make the data of the captioner",
    )
    parser.add_argument("--out", type=Path, help="JSON file to write the measurements to")
    args = parser.parse_args()
    for folder in (args.clip, args.diffusion):
        if not folder.is_dir():
            raise MissingFileError(f"no folder {folder}: pass the folder of a model")
    if not (args.cache / "web").is_dir():
        raise MissingFileError(
            f"no folder {args.cache}/web: run `pcm train-prior --stages web --cache {args.cache}`, "
            "or pass its folder as --cache"
        )
    from pcm_plugin.commands.toyworld.prior_quality import (
        measure_captioner,
        measure_clip,
        measure_diffusion,
    )
    from pcm_plugin.models.backbones import OpenCLIPBackbone

    clip = OpenCLIPBackbone(f"local-dir:{args.clip}")
    report = measure_clip(clip)
    if args.clip.samefile(ASSETS / "clip"):
        report |= measure_captioner(args.processes)
    report |= measure_diffusion(
        clip, args.diffusion, args.cache, args.count, args.steps, args.guidance
    )
    rounded = {name: {k: round(v, 3) for k, v in values.items()} for name, values in report.items()}
    folders = {"clip": args.clip, "diffusion": args.diffusion}
    rounded["measured"] = {part: content_id(path) for part, path in folders.items()}
    print(json.dumps(rounded, indent=2))
    if args.out:
        args.out.write_text(json.dumps(rounded, indent=2) + "\n")
