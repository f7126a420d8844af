"""Caption images.

python tools/caption.py captioner.safetensors photos/ more/one.jpg
python tools/caption.py pcm-net_toy images/ --out captions.json --sheet sheet.png --html report.html
python tools/caption.py best.pth images/ --config configs/pcm_coco.py --captions 3 --beam 5

Prints one line per image: its file, a tab, its caption. The weights are a file of tools/export.py,
the name of a model that comes with the package, or a checkpoint with the --config of its training.

--out writes a COCO results file, [{"image_id": ..., "caption": ..., ...}, ...], for tools/score.py
and pycocotools. An image's id is the number in its file name (COCO_val2014_000000000042.jpg,
000000000042.jpg and 42.png are 42), else its name without the suffix; images that would share an
id keep the suffix.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pcm_plugin.apis import CaptionInferencer
from pcm_plugin.datasets.durable import write_bytes, write_json
from pcm_plugin.datasets.image_ids import results_ids
from pcm_plugin.plain_errors import plain_errors
from pcm_plugin.synthesis.sources import all_images
from pcm_plugin.visualization import captions_page, contact_sheet, save_sheet

BATCH = 32
MOST_DRAWN = 200


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", help="captioner's file or name; or a checkpoint, with --config")
    parser.add_argument("images", nargs="+", help="files, or folders of images")
    parser.add_argument("--config", help="config of the training, for a checkpoint")
    parser.add_argument("--device", help="e.g. cuda:0; default: a GPU if there is one")
    parser.add_argument("--batch-size", type=int, default=BATCH)
    parser.add_argument("--beam", type=int, help="beams; 1 is greedy")
    parser.add_argument("--captions", type=int, help="captions an image, at most --beam")
    parser.add_argument("--min-len", type=int, help="fewest words")
    parser.add_argument("--max-len", type=int, help="most words, the stop token included")
    parser.add_argument(
        "--length-penalty",
        type=float,
        help="power of its length that a caption's log-probability is divided by: 0 ranks by the "
        "sum, 1 by the mean per word (default: as the model was trained)",
    )
    parser.add_argument(
        "--rerank",
        type=float,
        help="weight of CLIP's cosine of image and caption, by which beams are ordered anew",
    )
    parser.add_argument(
        "--out", help="COCO results file: ids, captions, scores, concepts, mixed patches"
    )
    parser.add_argument("--sheet", help="PNG: images with captions, concepts and mixed patches")
    parser.add_argument("--html", help="the same as a web page that stands alone")
    return parser.parse_args()


def search_of(args: argparse.Namespace) -> dict[str, Any]:
    """What the command line says of the search."""
    given = {
        "beam_size": args.beam,
        "num_captions": args.captions,
        "min_len": args.min_len,
        "max_len": args.max_len,
        "rerank": args.rerank,
        "length_penalty": args.length_penalty,
    }
    return {key: value for key, value in given.items() if value is not None}


def list_images(inputs: list[str]) -> dict[str, int | str]:
    """Return the image files of the command line, each once, with their ids in a results file.

    Raises:
        FileNotFoundError: If an input does not exist, or a folder holds no images.
    """
    absent = [name for name in inputs if not Path(name).exists()]
    if absent:
        raise FileNotFoundError(f"no such file or folder: {', '.join(absent)}")
    names: dict[str, str] = {}
    seen: set[str] = set()
    for given in map(Path, inputs):
        inside = [image.file_name for image in all_images(given)] if given.is_dir() else [""]
        if not inside:
            raise FileNotFoundError(f"{given} holds no images")
        for name in inside:
            path = str(given / name)
            if os.path.abspath(path) not in seen:
                seen.add(os.path.abspath(path))
                names[path] = name or given.name
    return dict(zip(names, results_ids([*names.values()], [*names]), strict=True))


def write(args: argparse.Namespace, rows: list, entries: list, grid: tuple[int, int]) -> None:
    """Write the files that the command line asks for."""
    if args.out and rows:
        write_json(Path(args.out), rows)
    if args.sheet and entries:
        save_sheet(contact_sheet(entries, grid), args.sheet)
    if args.html and entries:
        page = captions_page(entries, grid, f"Captions by {Path(args.weights).name}")
        write_bytes(Path(args.html), page.encode())
    if len(entries) == MOST_DRAWN < len(rows):
        print(f"sheet and page show the first {MOST_DRAWN} of {len(rows):,} images")


def main() -> None:
    """Run the command."""
    args = parse_args()
    rows: list[dict[str, Any]] = []
    entries = []
    broken = 0
    with plain_errors():
        ids = list_images(args.images)
        inferencer = CaptionInferencer(
            args.config, args.weights, args.device, show_progress=sys.stderr.isatty()
        )
        found = inferencer.stream(list(ids), args.batch_size, skip_broken=True, **search_of(args))
        try:
            for image, sample in found:
                if image is None:
                    broken += 1
                    tqdm.write(f"left out: {sample['error']}", sys.stderr)
                    continue
                row = inferencer.describe(sample)
                rows.append({"image_id": ids[row["image"]], **row})
                tqdm.write(f"{rows[-1]['image']}\t{rows[-1]['caption']}")
                if (args.sheet or args.html) and len(entries) < MOST_DRAWN:
                    entries.append(inferencer.sheet_entry(image, sample))
        finally:
            # What was captioned before an interruption is not lost.
            write(args, rows, entries, inferencer.grid)
    if broken:
        sys.exit(f"{broken} of {len(ids)} images could not be read")


if __name__ == "__main__":
    main()
