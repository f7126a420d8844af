"""Run the complete pipeline in the toy world.

    pcm demo                    (or: make demo)
    pcm demo --recipe toy

With the recommended recipe, which is the default, the steps are those of a user who has captions
and photos. The recipe toy is PCM-Net as published, and makes the data of configs/pcm_toy.py and its
kind. Every step is a command that works for your own data too; it is printed before it runs. Steps
whose output exists are skipped.
"""

import argparse
import os
import time
from pathlib import Path

from pcm_plugin.commands.argument_types import positive_integer
from pcm_plugin.commands.processes import shell_command
from pcm_plugin.commands.toyworld.steps import DATA, QUICK, SIZES, TARGETS
from pcm_plugin.errors import plain_errors

SCORES = ("BLEU-4", "ROUGE-L", "CIDEr")


def show(captioner: Path, sheet: Path) -> None:
    """Caption ten image files; print the captions and write a contact sheet."""
    from pcm_plugin.apis import CaptionInferencer
    from pcm_plugin.formats.coco import read_coco_images
    from pcm_plugin.visualization import contact_sheet, save_sheet

    inferencer = CaptionInferencer(weights=captioner, device="cpu", show_progress=False)
    entries = []
    for domain in SIZES:
        root = DATA / domain
        images = read_coco_images(root / "captions_test.json")[:5]
        results = inferencer.stream([root / "images" / image.file_name for image in images])
        for truth, (image, sample) in zip(images, results, strict=True):
            assert image is not None
            entries.append(inferencer.to_sheet_entry(image, sample, truth.captions))
            print(f"\n{truth.image_id}: {sample.pred_caption}")
            for reference in truth.captions[:3]:
                print(f"    reference: {reference}")
    save_sheet(contact_sheet(entries, inferencer.grid, title="The toy world"), sheet)


@plain_errors()
def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--recipe",
        choices=("recommended_toy", "toy"),
        default="recommended_toy",
        help="recipe of the captioner (default: %(default)s)",
    )
    parser.add_argument(
        "--processes",
        type=positive_integer,
        default=min(2, os.cpu_count() or 1),
        help="number of processes that generate images and extract features (default: %(default)s)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="test the pipeline with 20 captions and one epoch; run it in an empty folder",
    )
    args = parser.parse_args()
    from pcm_plugin.commands.toyworld import published_demo, recommended_demo

    start = time.time()
    demo = published_demo if args.recipe == "toy" else recommended_demo
    demo.make_data(args.processes, args.quick)
    checkpoint = demo.train(QUICK if args.quick else ())
    captioner = demo.make_captioner(checkpoint)
    table = demo.evaluate(checkpoint)
    report = demo.write_report(checkpoint)
    sheet = demo.WORK / "contact_sheet.png"
    show(captioner, sheet)
    print(f"\n{'real test images':24}" + "".join(f"{s:>10}" for s in SCORES))
    for name, scores in zip(TARGETS, table, strict=True):
        print(f"{name:24}" + "".join(f"{scores[s]:10.1f}" for s in SCORES))
    print(f"\ncontact sheet: {sheet}\nreport: {report}\ncaptioner: {captioner}")
    print(f"  {shell_command(['caption', captioner])} IMAGES")
    print(f"time: {(time.time() - start) / 60:.1f} minutes")
