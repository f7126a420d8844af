"""Tables, images and JSON values of ``pcm report --photos``."""

import argparse
import math
from typing import Any

import torch
from mmengine.config import Config
from PIL import Image
from torch import Tensor

from pcm_plugin.commands.photo_report import ImageSet, PhotoResults
from pcm_plugin.commands.report_images import make_placeholder, read_thumbnail, read_training_images
from pcm_plugin.evaluation.concept_counts import Row
from pcm_plugin.formats.images.folder import printable
from pcm_plugin.visualization import SheetEntry
from pcm_plugin.visualization.report import PageTable

ROWS = 12
"""Rows of a table of concepts."""
READING = {
    "mean_distance": "distance of the mean features; 0 for equal means",
    "frechet_distance": "mean and variety; 0 for equal Gaussians, larger for few images",
    "mmd": "around 0 if both are alike, whatever their number",
    "neighbor_accuracy": "%; 50 if they cannot be told apart, 100 if they are separate",
}


def make_tables(result: PhotoResults) -> list[PageTable]:
    """Return the tables of the page."""
    columns = {"photos": result.photos.scores}
    if result.synthetic is not None:
        columns["synthetic images"] = result.synthetic.scores
        columns["synthetic images, training captions"] = result.training_scores
    names = list(result.photos.scores)
    rows = [[name, *(_cell(scores[name]) for scores in columns.values())] for name in names]
    tables = [PageTable("Captions of photos without references", ["", *columns], rows)]
    if result.gap is not None:
        gap = [
            [name.replace("_", " "), f"{value:.3g}", READING[name]]
            for name, value in result.gap.figures().items()
        ]
        heading = "Gap between synthetic images and photos, by CLIP features"
        tables.append(PageTable(heading, ["", "value", "reading"], gap))
    for title, head, concepts in concept_tables(result):
        if concepts:
            tables.append(PageTable(title, head, [list(row) for row in concepts[:ROWS]]))
    return tables


def concept_tables(result: PhotoResults) -> list[tuple[str, list[str], list[Row]]]:
    """Return title, head and rows of the tables of concepts that could be counted."""
    concepts = result.concepts
    tables: list[tuple[str, list[str], list[Row]]] = []
    if result.synthetic is not None and result.synthetic.found is not None:
        head = ["concept", "% of photos", "% of synthetic images"]
        title = "Concepts in photos and not in synthetic images"
        tables.append((title, head, concepts.only_in_photos))
        title = "Concepts in synthetic images and not in photos"
        tables.append((title, head, concepts.only_in_synthetic))
    if result.photos.named is not None:
        head = ["concept", "% of photos", "% of training captions"]
        title = "Concepts in photos and not in training captions"
        tables.append((title, head, concepts.rare_in_captions))
        head = ["concept", "% of photos that show it", "% whose caption names it too"]
        tables.append(("Concepts that captions of photos leave out", head, concepts.left_out))
    return tables


def make_figures(result: PhotoResults) -> dict[str, Any]:
    """Return the JSON values."""
    photos, synthetic, gap = result.photos, result.synthetic, result.gap
    figures: dict[str, Any] = {
        "photos": {"images": len(photos.store), "measured": len(photos.rows)},
        "scores": {"photos": photos.scores},
        "concepts": {title: rows for title, _, rows in concept_tables(result)},
    }
    figures["photos"]["skipped"] = result.num_skipped
    if synthetic is not None and gap is not None:
        figures["scores"]["synthetic images"] = synthetic.scores
        figures["scores"]["training captions"] = result.training_scores
        figures["gap"] = gap.figures()
        figures["typical"] = {
            name: [
                {"image_id": images.store.record(images.rows[i])["image_id"], "similarity": value}
                for i, value in by_similarity(values)
            ]
            for name, images, values in (
                ("photos", photos, gap.other_similarities),
                ("synthetic images", synthetic, gap.similarities),
            )
        }
    return figures


def by_similarity(values: Tensor) -> list[tuple[int, float]]:
    """Return index and similarity of all images, the most typical first."""
    order = torch.sort(values, descending=True, stable=True)
    return list(zip(order.indices.tolist(), order.values.tolist(), strict=True))


def choose_ends(values: Tensor, count: int) -> tuple[list[int], list[int]]:
    """Return the most and the least typical images, none in both."""
    order = [i for i, _ in by_similarity(values)]
    count = min(count, len(order) // 2)
    return order[:count], order[::-1][:count]


def entry_of(images: ImageSet, i: int, image: Image.Image, similarity: float) -> SheetEntry:
    """Return the entry of an image for the page."""
    record = images.store.record(images.rows[i])
    name = printable(str(record.get("file_name") or record["image_id"]))
    return SheetEntry(image, images.captions[i], title=f"{name} · similarity {similarity:.3f}")


def _cell(value: float) -> float | str:
    return "-" if math.isnan(value) else value


def draw_typical(
    cfg: Config, args: argparse.Namespace, result: PhotoResults, notes: list[str]
) -> dict[str, list[SheetEntry]]:
    """Return the most and least typical photos and synthetic images, by heading.

    Remarks are appended to ``notes``.
    """
    if result.gap is None or result.synthetic is None:
        return {}
    folder = args.photo_images
    if folder is None:
        folder = cfg.photos.images if args.photos is True else args.photos
    store = result.photos.store
    sheets: dict[str, list[SheetEntry]] = {}
    ends = choose_ends(result.gap.other_similarities, args.count)
    headings = ("Photos most like the synthetic images", "Photos least like the synthetic images")
    for heading, indices in zip(headings, ends, strict=True):
        sheets[heading] = []
        for i in indices:
            name = store.record(result.photos.rows[i]).get("file_name", "")
            image = read_thumbnail(folder, name)
            if image is None:
                image = make_placeholder()
                notes.append(
                    "Photos that cannot be read are replaced by gray squares. Pass their folder "
                    "with --photo-images."
                )
            similarity = float(result.gap.other_similarities[i])
            sheets[heading].append(entry_of(result.photos, i, image, similarity))
    ends = choose_ends(result.gap.similarities, args.count)
    headings = ("Synthetic images most like the photos", "Synthetic images least like the photos")
    for heading, indices in zip(headings, ends, strict=True):
        rows = [result.synthetic.rows[i] for i in indices]
        images = read_training_images(cfg, args, result.synthetic.store, rows, notes)
        sheets[heading] = [
            entry_of(result.synthetic, i, image, float(result.gap.similarities[i]))
            for i, image in zip(indices, images, strict=True)
        ]
    return sheets
