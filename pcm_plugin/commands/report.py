"""Make one web page of a training: curves, scores, training pairs, captions from best to worst.

python tools/report.py work_dirs/pcm_toy
python tools/report.py work_dirs/pcm_coco --images data/coco/images --train-images FOLDER

The page is one file that opens without a network. It takes the run's config, best checkpoint and
data from the work folder, and captions the test split (or --split val) to find the best, median and
worst captions by CIDEr.
"""

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import Runner
from PIL import Image
from tqdm import tqdm

from pcm_plugin.engine.checkpoints import latest_checkpoint, load_weights
from pcm_plugin.engine.inputs import check_inputs, drop_clip_head
from pcm_plugin.engine.work_folder import best_checkpoint
from pcm_plugin.errors import MissingFileError, UserError, plain_errors
from pcm_plugin.evaluation import CaptionMetric
from pcm_plugin.formats.atomic_io import write_bytes
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.images.image_io import read_image
from pcm_plugin.formats.pair_selection import load_pairs
from pcm_plugin.registry import MODELS
from pcm_plugin.structures import DataSample
from pcm_plugin.synthesis.extract.store_images import load_images
from pcm_plugin.visualization import SheetEntry, concepts_of_sample
from pcm_plugin.visualization.report import (
    GREY,
    Pair,
    Scored,
    choose_samples,
    read_run,
    report_page,
)

SHOWN = 640


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work_dir", type=Path, help="the run's work folder")
    parser.add_argument("--config", help="default: the one that the run left in its folder")
    parser.add_argument("--checkpoint", help="default: the best on validation, else the last")
    parser.add_argument("--split", choices=["test", "val"], help="default: test, if there is one")
    parser.add_argument("--images", type=Path, help="folder of that split's images")
    parser.add_argument(
        "--train-images", type=Path, help="what the training's features were extracted from"
    )
    parser.add_argument("--count", type=int, default=6, help="examples of each kind")
    parser.add_argument("--device", help="e.g. cuda:0; default: a GPU if there is one")
    parser.add_argument("--out", type=Path, help="default: WORK_DIR/report.html")
    return parser.parse_args()


def find_config(args: argparse.Namespace) -> Config:
    """The config of the run."""
    own = sorted(args.work_dir.glob("*.py"), key=lambda path: path.stat().st_mtime)
    found = [args.config] if args.config else own
    if not found:
        raise MissingFileError(f"{args.work_dir} holds no config: name it with --config")
    return Config.fromfile(found[-1])


def find_checkpoint(args: argparse.Namespace) -> Path:
    """The checkpoint that captions."""
    found = Path(args.checkpoint) if args.checkpoint else best_checkpoint(args.work_dir)
    found = found or latest_checkpoint(args.work_dir)
    if found is None:
        raise MissingFileError(f"{args.work_dir} holds no checkpoint: name it with --checkpoint")
    return found


def caption(cfg: Config, split: str, checkpoint: Path, device: str) -> tuple[Any, list[Any]]:
    """Caption a split: the model, and each image's data sample with its CIDEr."""
    model = MODELS.build(cfg.model)
    load_weights(model, str(checkpoint))
    model.to(device).eval()
    loader = Runner.build_dataloader(cfg[f"{split}_dataloader"])
    samples: list[DataSample] = []
    with torch.inference_mode():
        for batch in tqdm(loader, desc=f"captions of {split}"):
            samples += model.test_step(batch)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "each.json"
        metric = CaptionMetric(["CIDEr"], per_image=file)
        metric.process(None, samples)
        metric.evaluate(len(samples))
        rows = {str(row["image_id"]): row["CIDEr"] for row in json.loads(file.read_text())}
    # Images without references have no score, and a single image has no CIDEr.
    scored = [(sample, str(sample.image_id)) for sample in samples]
    undefined = dict.fromkeys((key for key, cider in rows.items() if cider is None), math.nan)
    return model, [(sample, (rows | undefined)[key]) for sample, key in scored if key in rows]


def draw_samples(
    cfg: Config, split: str, checkpoint: Path, args: argparse.Namespace, notes: list[str]
) -> list[Scored]:
    """The best, median and worst captions of a split."""
    model, scored = caption(cfg, split, checkpoint, args.device or get_device())
    store = FeatureStore(cfg[f"{split}_dataloader"].dataset.store)
    root = args.images or cfg[f"{split}_dataloader"].dataset.get("data_prefix")
    names = {}
    for i in range(len(store)):
        record = store.record(i)
        names[record["image_id"]] = record.get("file_name", "")
    words = getattr(model.neck, "concept_words", [])
    chosen = [scored[i] for i in choose_samples([cider for _, cider in scored], args.count)]
    found = []
    for sample, cider in chosen:
        try:
            image = read_image(Path(root or "nowhere") / names[sample.image_id])
            image.thumbnail((SHOWN, SHOWN))
        except (OSError, ValueError):
            image = Image.new("RGB", (SHOWN // 2, SHOWN // 2), GREY)
            notes.append(
                "Images of the samples are grey where their files cannot be read: name their "
                "folder with --images."
            )
        concepts, patches = concepts_of_sample(sample, words)
        entry = SheetEntry(
            image, sample.pred_caption, sample.gt_caption, concepts, patches, sample.image_id
        )
        found.append(Scored(entry, cider))
    return found


def draw_pairs(
    cfg: Config, args: argparse.Namespace, notes: list[str]
) -> tuple[np.ndarray, list[Pair], list[Pair]]:
    """CLIP scores of the training pairs, and pairs from both ends."""
    dataset = cfg.train_dataloader.dataset
    store = FeatureStore(dataset.store)
    pairs = load_pairs(store, dataset.get("pairs"))
    order = np.argsort(pairs.clip_score, kind="stable")
    lowest = dataset.get("min_clip_score")
    if lowest is not None:
        order = order[pairs.clip_score[order] >= lowest]
    folder = args.train_images or Path(cfg.get("root", ".")) / "synthetic"
    ends = []
    for numbers in (order[: args.count], order[::-1][: args.count]):
        images = [int(pairs.image[p]) for p in numbers]
        try:
            pictures = load_images(store, images, folder)
        except (OSError, ValueError) as error:
            pictures = [Image.new("RGB", (SHOWN // 2, SHOWN // 2), GREY)] * len(images)
            notes.append(f"Training images are grey (--train-images names their folder): {error}")
        rows = zip(pictures, numbers, strict=True)
        ends.append(
            [Pair(i, store.caption(int(pairs.caption[p])), pairs.clip_score[p]) for i, p in rows]
        )
    return pairs.clip_score[order], ends[0], ends[1]


@plain_errors()
def main() -> None:
    """Run the command."""
    args = parse_args()
    if args.count < 1:
        raise UserError(f"--count must be at least 1, got {args.count}")
    run = read_run(args.work_dir)
    cfg, checkpoint = find_config(args), find_checkpoint(args)
    there = [s for s in ("test", "val") if cfg.get(f"{s}_dataloader") is not None]
    if args.split and args.split not in there:
        raise UserError(f"the run has no {args.split} split")
    split = args.split or next(iter(there), None)
    drop_clip_head(cfg)
    check_inputs(cfg, ("train", *([split] if split else [])))
    notes: list[str] = []
    clip_scores, low, high = draw_pairs(cfg, args, notes)
    samples: list[Scored] = []
    if split:
        samples = draw_samples(cfg, split, checkpoint, args, notes)
    else:
        notes.append("No captions are shown: the run has no real images.")
    side = round(cfg.model.neck.get("num_patches", 1) ** 0.5)
    text = report_page(
        f"{args.work_dir.resolve().name}: {checkpoint.name}",
        run,
        cfg.pretty_text,
        (side, side),
        checkpoint.name,
        samples,
        clip_scores,
        low,
        high,
        list(dict.fromkeys(notes)),
    )
    out = args.out or args.work_dir / "report.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, text.encode())
    print(f"{out}: {len(text.encode()) / 2**20:.1f} MiB")
