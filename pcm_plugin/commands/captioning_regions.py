"""Captions of regions of images, from the options of ``pcm caption``."""

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from pcm_plugin.commands.captioning import (
    decoding_options,
    find_images,
    load_inferencer,
    report_interruption,
)
from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import fingerprint
from pcm_plugin.formats.caption_results import check_region_results_file, write_region_results
from pcm_plugin.formats.image_ids import results_ids
from pcm_plugin.formats.images.folder import printable
from pcm_plugin.formats.regions import Region, read_regions

if TYPE_CHECKING:
    from pcm_plugin.apis import CaptionInferencer

_SHOWN = 3


class RegionJob(NamedTuple):
    """Regions of an image to caption.

    Attributes:
        path: Image file.
        image_id: Id of the image in the results.
        regions: The regions.
    """

    path: str
    image_id: int | str
    regions: list[Region]


def run_regions(args: argparse.Namespace) -> None:
    """Caption the regions of the command line.

    Raises:
        MissingFileError: If a file is missing.
        UserError: If an option is invalid or the captioner does not support regions; or at the end,
            if images could not be read or regions of ``--boxes`` are invalid.
    """
    _check_options(args)
    jobs = _jobs_of_file(args) if args.boxes else _jobs_of_options(args)
    inferencer = load_inferencer(args)
    if args.out:
        count, broken = _caption_to_file(args, inferencer, jobs)
    else:
        rows = [row for image in _caption(args, inferencer, jobs) for row in image["rows"]]
        count, broken = len(rows), sum("error" in row for row in rows)
    if broken:
        raise UserError(f"{broken:,} of {count:,} regions could not be captioned")


def _check_options(args: argparse.Namespace) -> None:
    if args.boxes and (args.box or args.point):
        raise UserError("--boxes must not be combined with --box and --point: add them to its file")
    for option in ("text_files", "overwrite", "sheet", "html"):
        if getattr(args, option):
            raise UserError(f"--{option.replace('_', '-')} is not available for regions: use --out")
    if args.rerank_clip:
        raise UserError("--rerank-clip is not available for regions: leave it out")
    if args.out:
        check_region_results_file(Path(args.out))


def _jobs_of_options(args: argparse.Namespace) -> list[RegionJob]:
    ids = find_images(args.images)
    if len(ids) != 1:
        raise UserError(f"--box and --point need one image, got {len(ids):,}: use --boxes FILE")
    regions = [Region(box=tuple(box)) for box in args.box or ()]
    regions += [Region(point=tuple(point)) for point in args.point or ()]
    return [RegionJob(path, image_id, regions) for path, image_id in ids.items()]


def _jobs_of_file(args: argparse.Namespace) -> list[RegionJob]:
    if len(args.images) != 1 or not Path(args.images[0]).is_dir():
        raise UserError(f"--boxes needs the folder of its images, got {' '.join(args.images)}")
    images = read_regions(args.boxes)
    paths = [str(Path(args.images[0]) / image.file_name) for image in images]
    if missing := [path for path in paths if not Path(path).is_file()]:
        first = ", ".join(map(printable, missing[:_SHOWN]))
        raise MissingFileError(
            f"{len(missing):,} of the {len(paths):,} images of {args.boxes} do not exist: {first}"
        )
    ids = results_ids([image.file_name for image in images], paths)
    return [
        RegionJob(path, own_id if image.image_id is None else image.image_id, image.regions)
        for path, own_id, image in zip(paths, ids, images, strict=True)
    ]


def _caption(
    args: argparse.Namespace, inferencer: "CaptionInferencer", jobs: Sequence[RegionJob]
) -> Iterator[dict[str, Any]]:
    """Caption the regions of each image, print them, and yield a dict with their ``rows``."""
    for job in tqdm(jobs, desc="images", disable=not sys.stderr.isatty()):
        rows = _caption_image(args, inferencer, job)
        for row in rows:
            if "error" in row:
                message = printable(f"skipped: {row['image']}: {row['error']}")
                tqdm.write(message, sys.stderr)
            else:
                numbers = " ".join(map(str, row["box"] if "box" in row else row["point"]))
                tqdm.write(f"{printable(row['image'])}\t{numbers}\t{row['caption']}")
        yield {"rows": rows}


def _caption_image(
    args: argparse.Namespace, inferencer: "CaptionInferencer", job: RegionJob
) -> list[dict[str, Any]]:
    """Return the row of each region; with ``error`` if it, or the image, is invalid."""
    from pcm_plugin.apis.image_inputs import load_input

    entry = load_input(0, job.path, skip_invalid=bool(args.boxes))
    boxes = [region.box for region in job.regions if region.box is not None]
    points = [region.point for region in job.regions if region.point is not None]
    if isinstance(entry, dict):
        error = entry["error"]
        found = [{"box": list(box), "error": error} for box in boxes]
        found += [{"point": list(point), "error": error} for point in points]
    else:
        found = inferencer.regions(
            entry.image,
            boxes,
            points,
            skip_invalid=bool(args.boxes),
            batch_size=args.batch_size,
            **decoding_options(args),
        )
    rows = [{**row, "image": job.path, "image_id": job.image_id} for row in found]
    of_boxes, of_points = iter(rows[: len(boxes)]), iter(rows[len(boxes) :])
    ordered = []
    for region in job.regions:
        row = next(of_points if region.box is None else of_boxes)
        ordered.append(row if region.region_id is None else {**row, "region_id": region.region_id})
    return ordered


def _caption_to_file(
    args: argparse.Namespace, inferencer: "CaptionInferencer", jobs: Sequence[RegionJob]
) -> tuple[int, int]:
    """Caption regions into ``--out``.

    Returns:
        Number of regions, and of those that could not be captioned.
    """
    from pcm_plugin.apis.journal import Journal

    decoding = inferencer.model.decoding.updated(decoding_options(args))
    settings = {
        "model": inferencer.identity(),
        "decoding": dataclasses.asdict(decoding),
        "batch_size": args.batch_size,
        "device": next(inferencer.model.parameters()).device.type,
        "images": len(jobs),
        "list of regions": fingerprint([(printable(j.path), *j[1:]) for j in jobs]),
    }
    out = Path(args.out)
    with Journal(out, settings, 1) as journal:
        if journal.count:
            print(f"resuming: {journal.count:,} images are captioned already", file=sys.stderr)
        with report_interruption(journal, len(jobs)):
            for image in _caption(args, inferencer, jobs[journal.count :]):
                journal.append([image])
        flags = ["error" in row for image in journal.rows() for row in image["rows"]]
        rows = (row for image in journal.rows() for row in image["rows"] if "error" not in row)
        write_region_results(out, rows)
        journal.remove()
    return len(flags), sum(flags)
