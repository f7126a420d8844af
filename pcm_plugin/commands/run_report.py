"""Web page about a training run, from the options of ``pcm report``."""

import argparse
import dataclasses
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

from pcm_plugin.commands.build_commands import check_inputs
from pcm_plugin.commands.photo_report import PhotoResults, measure_photos
from pcm_plugin.commands.photo_tables import draw_typical, make_figures, make_tables
from pcm_plugin.commands.report_images import make_placeholder, read_thumbnail, read_training_images
from pcm_plugin.engine.caption_metrics import captions_language
from pcm_plugin.engine.checkpoints import latest_checkpoint, load_weights
from pcm_plugin.engine.config_files import read_config_file
from pcm_plugin.engine.inputs import drop_clip_head, is_validated_on_held_out
from pcm_plugin.engine.work_folder import best_checkpoint
from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.evaluation import CaptionMetric
from pcm_plugin.evaluation.assessment import Measurements, assess
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.pair_selection import load_pairs
from pcm_plugin.models.decoding import DecodingConfig
from pcm_plugin.registry import MODELS
from pcm_plugin.structures import DataSample
from pcm_plugin.synthesis.pipeline.validation import TRAIN_PAIRS
from pcm_plugin.visualization import SheetEntry, concepts_of_sample
from pcm_plugin.visualization.report import (
    RunLog,
    ScoredEntry,
    TrainingPair,
    choose_samples,
    find_cider,
    read_run,
    report_page,
)


def load_config(args: argparse.Namespace) -> Config:
    """Load the config of the run: ``--config``, or the latest one in the work folder."""
    in_folder = sorted(args.work_dir.glob("*.py"), key=lambda path: path.stat().st_mtime)
    if args.config is None and not in_folder:
        raise MissingFileError(f"{args.work_dir} contains no config: pass it with --config")
    return read_config_file(args.config or in_folder[-1])


def find_checkpoint(args: argparse.Namespace) -> Path:
    """Return ``--checkpoint``, or the best or else the last checkpoint of the run."""
    file = Path(args.checkpoint) if args.checkpoint else best_checkpoint(args.work_dir)
    file = file or latest_checkpoint(args.work_dir)
    if file is None:
        raise MissingFileError(f"{args.work_dir} contains no checkpoint: pass it with --checkpoint")
    return file


def choose_split(cfg: Config, requested: str | None) -> str | None:
    """Return the split to caption, None if the run has neither test nor validation data."""
    splits = [split for split in ("test", "val") if cfg.get(f"{split}_dataloader") is not None]
    if requested and requested not in splits:
        raise UserError(
            f"--split must be a split of the run ({', '.join(splits) or 'it has none'}), got "
            f"{requested}"
        )
    return requested or next(iter(splits), None)


def load_model(cfg: Config, checkpoint: Path, split: str | None, device: str) -> Any:
    """Return the captioner of the run."""
    model = MODELS.build(cfg.model)
    load_weights(model, str(checkpoint), cfg, [split or "train"])
    return model.to(device).eval()


def caption(cfg: Config, split: str, model: Any) -> list[tuple[DataSample, float]]:
    """Caption a split.

    Returns:
        The data sample and CIDEr (times 100) of each image that has references. CIDEr is NaN if it
        is undefined, as for a single image.
    """
    loader = Runner.build_dataloader(cfg[f"{split}_dataloader"])
    samples: list[DataSample] = []
    with torch.inference_mode():
        for batch in tqdm(loader, desc=f"captions of {split}"):
            samples += model.test_step(batch)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "per_image.json"
        language = captions_language(cfg, [split])
        metric = CaptionMetric(["CIDEr"], per_image=file, language=language)
        metric.process(None, samples)
        metric.evaluate(len(samples))
        rows = json.loads(file.read_text())
    ciders = {str(r["image_id"]): math.nan if r["CIDEr"] is None else r["CIDEr"] for r in rows}
    keyed = [(str(sample.image_id), sample) for sample in samples]
    return [(sample, ciders[key]) for key, sample in keyed if key in ciders]


def draw_samples(
    cfg: Config, split: str, model: Any, args: argparse.Namespace, notes: list[str]
) -> list[ScoredEntry]:
    """Return the best, median and worst captions of a split; remarks are appended to ``notes``."""
    scored = caption(cfg, split, model)
    store = FeatureStore(cfg[f"{split}_dataloader"].dataset.store)
    folder = args.images or cfg[f"{split}_dataloader"].dataset.get("data_prefix")
    records = map(store.record, range(len(store)))
    files = {record["image_id"]: record.get("file_name", "") for record in records}
    words = model.neck.concept_words
    entries = []
    chosen = choose_samples([cider for _, cider in scored], args.count)
    generated: dict[str, Image.Image] = {}
    if split == "val" and is_validated_on_held_out(cfg):
        ids = [scored[i][0].image_id for i in chosen]
        numbers = {image_id: i for i, image_id in enumerate(store.image_ids)}
        rows = [numbers[image_id] for image_id in ids]
        images = read_training_images(cfg, args, store, rows, notes)
        generated = dict(zip(ids, images, strict=True))
    for i in chosen:
        sample, cider = scored[i]
        image = generated.get(sample.image_id)
        if image is None:
            image = read_thumbnail(folder, files[sample.image_id])
        if image is None:
            image = make_placeholder()
            notes.append(
                f"Images of the {split} split that cannot be read are replaced by gray squares. "
                "Pass their folder with --images."
            )
        concepts, patches = concepts_of_sample(sample, words)
        entry = SheetEntry(
            image, sample.pred_caption, sample.gt_caption, concepts, patches, sample.image_id
        )
        entries.append(ScoredEntry(entry, cider))
    return entries


def draw_pairs(
    cfg: Config, args: argparse.Namespace, notes: list[str]
) -> tuple[np.ndarray | None, list[TrainingPair], list[TrainingPair]]:
    """Return the CLIP scores of the training pairs, and the pairs with the lowest and highest.

    Without training images there are none. Remarks are appended to ``notes``.
    """
    dataset = cfg.train_dataloader.dataset
    store = FeatureStore(dataset.store)
    if not store.has_images:
        notes.append("The run was trained on captions alone, so no training pairs are shown.")
        return None, [], []
    pairs = load_pairs(store, dataset.get("pairs"))
    order = np.argsort(pairs.clip_score, kind="stable")
    threshold = dataset.get("min_clip_score")
    if threshold is not None:
        order = order[pairs.clip_score[order] >= threshold]
    ends = []
    for indices in (order[: args.count], order[::-1][: args.count]):
        rows = [int(pairs.image[i]) for i in indices]
        images = read_training_images(cfg, args, store, rows, notes)
        captions = [store.caption(int(pairs.caption[i])) for i in indices]
        scores = [float(pairs.clip_score[i]) for i in indices]
        ends.append(list(map(TrainingPair, images, captions, scores)))
    return pairs.clip_score[order], ends[0], ends[1]


def measurements(
    cfg: Config, run: RunLog, checkpoint: Path, result: PhotoResults | None
) -> Measurements:
    """Return the values that the sentence at the top depends on."""
    cider, cider_on = find_cider(run, checkpoint.name)
    if cider_on.startswith("validation") and is_validated_on_held_out(cfg):
        cider_on += " (generated images of held-out captions)"
    dataset = cfg.train_dataloader.dataset
    pairs = dataset.get("pairs")
    values: dict[str, Any] = {
        "cider": cider,
        "cider_on": cider_on,
        "has_images": FeatureStore(dataset.store).has_images,
        "is_refined": pairs is not None and Path(pairs).name != Path(TRAIN_PAIRS).name,
        "is_reranked": DecodingConfig().updated(cfg.model.get("decoding") or {}).is_reranked,
    }
    if result is not None:
        scores = result.photos.scores
        values |= {
            "has_photos": True,
            "margin": scores["margin"],
            "copied": scores["copied"],
            "coverage": scores.get("concept coverage", math.nan),
            "missing_concepts": result.concepts.missing,
            "uses_photos": result.uses_photos,
        }
        if result.synthetic is not None and result.gap is not None:
            values["synthetic_margin"] = result.synthetic.scores["margin"]
            values["training_margin"] = result.training_scores["margin"]
            values["gap"] = result.gap.neighbor_accuracy
    return Measurements(**values)


def build_page(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Return the HTML of the page, and its figures as JSON values."""
    run = read_run(args.work_dir)
    cfg, checkpoint = load_config(args), find_checkpoint(args)
    split = choose_split(cfg, args.split)
    drop_clip_head(cfg)
    check_inputs(cfg, ("train", *([split] if split else [])))
    notes: list[str] = []
    if is_validated_on_held_out(cfg):
        notes.append(
            "Validation is on generated images of held-out captions. Its scores compare "
            "checkpoints; those on real images will be lower."
        )
    device = args.device or get_device()
    model = load_model(cfg, checkpoint, split, device) if split or args.photos else None
    result = None
    if args.photos:
        result = measure_photos(cfg, model, args, device, notes)
    clip_scores, low, high = draw_pairs(cfg, args, notes)
    samples: list[ScoredEntry] = []
    if split:
        samples = draw_samples(cfg, split, model, args, notes)
    else:
        notes.append("The run has no real images, so no captions are shown.")
    values = measurements(cfg, run, checkpoint, result)
    side = round(cfg.model.neck.get("num_patches", 1) ** 0.5)
    sentence = assess(values)
    sheets = {} if result is None else draw_typical(cfg, args, result, notes)
    page = report_page(
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
        sentence,
        [] if result is None else make_tables(result),
        sheets,
    )
    figures: dict[str, Any] = {"assessment": sentence, "checkpoint": checkpoint.name}
    figures["measurements"] = dataclasses.asdict(values)
    return page, without_nan(figures | ({} if result is None else make_figures(result)))


def without_nan(value: Any) -> Any:
    """Return JSON values with None in place of NaN."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
