"""Captions of image files, from the options of ``pcm caption``."""

import argparse
import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from pcm_plugin.commands.garbage_collection import paused_garbage_collection
from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import fingerprint, write_bytes
from pcm_plugin.formats.caption_results import (
    METADATA,
    check_results_file,
    text_file,
    write_results,
    write_text_file,
)
from pcm_plugin.formats.image_ids import results_ids
from pcm_plugin.formats.images.folder import list_images, printable

if TYPE_CHECKING:
    from pcm_plugin.apis import CaptionInferencer
    from pcm_plugin.apis.journal import Journal
    from pcm_plugin.visualization import SheetEntry

MAX_DRAWN = 200
MAX_SIZE = (640, 640)


def decoding_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the decoding settings of the command line."""
    options = {
        "beam_size": args.beam_size,
        "num_captions": args.num_captions,
        "min_len": args.min_len,
        "max_len": args.max_len,
        "rerank": args.rerank,
        "rerank_weight": args.rerank_weight,
        "rerank_clip": args.rerank_clip,
        "rerank_clip_pretrained": args.rerank_clip_pretrained,
        "length_penalty": args.length_penalty,
        "start": args.start,
        "include": args.include,
        "exclude": args.exclude,
        "prefix": args.prefix,
        "suffix": args.suffix,
    }
    return {key: value for key, value in options.items() if value is not None}


def load_inferencer(args: argparse.Namespace) -> "CaptionInferencer":
    """Load the captioner of the command line."""
    with paused_garbage_collection():
        # Imported here because it is slow: an input that does not exist is reported at once.
        from pcm_plugin.apis import CaptionInferencer

        return CaptionInferencer(
            args.config,
            args.weights,
            args.device,
            show_progress=sys.stderr.isatty(),
            patch_mode=args.patch_mode,
        )


def find_images(inputs: list[str]) -> dict[str, int | str]:
    """Return the image files of the command line, each once, with their ids in a results file.

    Raises:
        MissingFileError: If an input does not exist, or a folder contains no images.
    """
    missing = [printable(name) for name in inputs if not Path(name).exists()]
    if missing:
        raise MissingFileError(f"no such file or folder: {', '.join(missing)}")
    names: dict[str, str] = {}
    seen: set[str] = set()
    for item in map(Path, inputs):
        for name in list_folder(item) if item.is_dir() else [""]:
            path = str(item / name)
            if os.path.abspath(path) not in seen:
                seen.add(os.path.abspath(path))
                names[path] = name or item.name
    return dict(zip(names, results_ids([*names.values()], [*names]), strict=True))


def list_folder(folder: Path) -> list[str]:
    """Return the images of a folder; files that are skipped are counted on stderr."""
    listing = list_images(folder)
    if listing.skipped:
        print(f"{printable(str(folder))}: {listing.describe_skipped()}", file=sys.stderr)
    # Names that are not valid UTF-8 are reported like images that cannot be read.
    files = listing.files + listing.undecodable
    if not files:
        raise MissingFileError(f"{printable(str(folder))} contains no images")
    return files


def check_outputs(args: argparse.Namespace, paths: list[str]) -> None:
    """Check the files to write against the images.

    Raises:
        UserError: If the name of ``--out`` is of no known format, ``metadata.jsonl`` exists or is
            not in the folder of the images, or two images would share a text file.
    """
    if args.overwrite and not args.text_files and Path(args.out or "").name != METADATA:
        raise UserError(f"--overwrite has no effect without --text-files or --out {METADATA}")
    if args.out:
        out = Path(args.out)
        check_results_file(out, paths)
        if out.name == METADATA and out.exists() and not args.overwrite:
            raise UserError(f"{out} exists: pass --overwrite to replace it")
    if args.text_files:
        owners: dict[Path, str] = {}
        for path in paths:
            other = owners.setdefault(text_file(path), path)
            if other != path:
                raise UserError(
                    f"{printable(other)} and {printable(path)} would have the same text file: "
                    "rename one of them"
                )


def existing_text_files(args: argparse.Namespace, paths: list[str]) -> set[str]:
    """Return the images whose text file exists and is kept."""
    return set() if args.overwrite else {path for path in paths if text_file(path).exists()}


def write_text_files(rows: Iterable[dict[str, Any]], kept: set[str]) -> Iterator[dict[str, Any]]:
    """Write the text file of each row as it passes, except those of the images in ``kept``."""
    for row in rows:
        if "error" not in row and row["image"] not in kept:
            write_text_file(row)
        yield row


def without_finished_batches(paths: list[str], kept: set[str], batch_size: int) -> list[str]:
    """Return the images of all batches in which one image is not in ``kept``.

    The other images of its batch are captioned too, because the last bits of the scores, and so in
    rare cases a caption, depend on the batch.
    """
    batches = (paths[start : start + batch_size] for start in range(0, len(paths), batch_size))
    return [path for batch in batches if not kept.issuperset(batch) for path in batch]


def caption(
    args: argparse.Namespace, inferencer: "CaptionInferencer", paths: list[str]
) -> Iterator[dict[str, Any]]:
    """Caption images, print their captions and yield a row for each, in order."""
    results = inferencer.stream(paths, args.batch_size, skip_invalid=True, **decoding_options(args))
    for image, sample in results:
        if image is None:
            tqdm.write(f"skipped: {printable(sample['error'])}", sys.stderr)
            yield sample
        else:
            row = inferencer.to_dict(sample)
            tqdm.write(f"{printable(row['image'])}\t{row['caption']}")
            yield row


def caption_to_file(
    args: argparse.Namespace, inferencer: "CaptionInferencer", ids: dict[str, int | str]
) -> int:
    """Caption images into ``--out``, and draw them.

    Returns:
        Number of images that could not be read.
    """
    from pcm_plugin.apis.journal import Journal
    from pcm_plugin.models.decoding.second_clip import with_clip_identity

    paths, out = list(ids), Path(args.out)
    decoding = inferencer.model.decoding.updated(decoding_options(args))
    settings = {
        "model": inferencer.identity(),
        "decoding": dataclasses.asdict(with_clip_identity(decoding)),
        "batch_size": args.batch_size,
        "device": next(inferencer.model.parameters()).device.type,
        "images": len(paths),
        "list of images": fingerprint([printable(path) for path in paths]),
    }
    with Journal(out, settings, args.batch_size) as journal:
        if journal.count:
            print(f"resuming: {journal.count:,} images are captioned already", file=sys.stderr)
        rows = caption(args, inferencer, paths[journal.count :])
        with report_interruption(journal, len(paths)):
            while batch := list(islice(rows, args.batch_size)):
                journal.append(batch)
        pairs = zip(ids.values(), journal.rows(), strict=True)
        write_results(out, ({"image_id": i, **row} for i, row in pairs if "error" not in row))
        rows = journal.rows()
        if args.text_files:
            rows = write_text_files(rows, existing_text_files(args, paths))
        broken = draw(args, inferencer, rows)
        journal.remove()
    return broken


@contextlib.contextmanager
def report_interruption(journal: "Journal", total: int) -> Iterator[None]:
    """Print how to continue if the job ends with an error; an empty journal is removed.

    Args:
        journal: Journal with one row per image.
        total: Number of images.
    """
    try:
        yield
    except BaseException:
        if journal.count:
            done = f"{journal.count:,} of {total:,} images are captioned"
            message = f"{done} and kept in {journal.path}: run the command again to continue"
            print(message, file=sys.stderr)
        else:
            journal.remove()
        raise


def draw(
    args: argparse.Namespace, inferencer: "CaptionInferencer", rows: Iterable[dict[str, Any]]
) -> int:
    """Draw the first images with their captions into ``--sheet`` and ``--html``.

    Returns:
        Number of rows of images that could not be read.
    """
    shown: list[dict[str, Any]] = []
    count = broken = 0
    try:
        for row in rows:
            count += 1
            if "error" in row:
                broken += 1
            elif (args.sheet or args.html) and len(shown) < MAX_DRAWN:
                shown.append(row)
    finally:  # after an interruption, the images captioned so far are drawn
        if shown:
            write_drawings(args, inferencer.grid, [entry_of(row) for row in shown])
        if len(shown) == MAX_DRAWN < count - broken:
            print(f"--sheet and --html show the first {MAX_DRAWN} of {count - broken:,} images")
    return broken


def entry_of(row: dict[str, Any]) -> "SheetEntry":
    """Return the contact sheet entry for a row of the results."""
    from pcm_plugin.formats.images.image_io import read_image
    from pcm_plugin.visualization import SheetEntry

    image = read_image(row["image"])
    image.thumbnail(MAX_SIZE)
    concepts = [(c["concept"], c["probability"]) for c in row["concepts"]]
    patches = [(p["patch"], p["concept"]) for p in row["patches"]]
    title = printable(Path(row["image"]).name)
    return SheetEntry(image, row["caption"], (), concepts, patches, title)


def write_drawings(
    args: argparse.Namespace, grid: tuple[int, int], entries: "list[SheetEntry]"
) -> None:
    """Write the sheet and the page."""
    from pcm_plugin.visualization import captions_page, contact_sheet, save_sheet

    if args.sheet:
        save_sheet(contact_sheet(entries, grid), args.sheet)
    if args.html:
        page = captions_page(entries, grid, f"Captions by {Path(args.weights).name}")
        write_bytes(Path(args.html), page.encode())


def run(args: argparse.Namespace) -> tuple[dict[str, int | str], int]:
    """Caption the images of the command line.

    Returns:
        Files with their ids, and the number of files that could not be read.
    """
    ids = find_images(args.images)
    paths = list(ids)
    check_outputs(args, paths)
    kept = existing_text_files(args, paths) if args.text_files else set()
    if kept:
        print(f"{len(kept):,} images have a text file, which is kept", file=sys.stderr)
    if args.text_files and not (args.out or args.sheet or args.html):
        paths = without_finished_batches(paths, kept, args.batch_size)
        if not paths:
            return ids, 0
    inferencer = load_inferencer(args)
    if args.out:
        return ids, caption_to_file(args, inferencer, ids)
    rows = caption(args, inferencer, paths)
    if args.text_files:
        rows = write_text_files(rows, kept)
    return ids, draw(args, inferencer, rows)
