"""Captions of the images of a folder for the web page, batch by batch, and files of them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pcm_plugin.commands.web_captioner import WebCaptioner, upload_name
from pcm_plugin.errors import UserError
from pcm_plugin.formats.caption_results import write_results
from pcm_plugin.formats.image_ids import results_ids
from pcm_plugin.formats.records import RECORD_SUFFIXES

BATCH_SIZE = 8
_THUMBNAIL = (400, 400)

Rows = list[dict[str, Any]]
"""Rows of the results, see :func:`caption_uploads`."""


def caption_uploads(
    captioner: WebCaptioner, uploads: Sequence[Any], settings: dict[str, Any], folder: Path
) -> Iterator[Rows]:
    """Caption uploaded images batch by batch.

    Args:
        captioner: The captioner.
        uploads: File data of gradio.
        settings: Settings of the search.
        folder: Folder for small copies of the images, which browsers show whatever the format.

    Yields:
        The rows of a batch: dicts with ``upload`` and ``name``; with ``error`` if the image cannot
        be read, otherwise with ``thumbnail`` (file), ``generated`` (the caption) and ``result``
        (dict of :meth:`.CaptionInferencer.to_dict`).

    Raises:
        UserError: If a setting is out of range.
    """
    names = unique_names([upload_name(upload) for upload in uploads])
    for start in range(0, len(uploads), BATCH_SIZE):
        batch = slice(start, start + BATCH_SIZE)
        rows: Rows = [
            {"upload": upload, "name": name}
            for upload, name in zip(uploads[batch], names[batch], strict=True)
        ]
        images: list[Image.Image] = []
        valid: Rows = []
        for row in rows:
            try:
                images.append(captioner.read_image(row["upload"]))
                valid.append(row)
            except (OSError, UserError) as error:
                row["error"] = str(error)
        results = captioner.caption(images, settings) if images else []
        for n, (row, (image, sample)) in enumerate(zip(valid, results, strict=True), start):
            thumbnail = image.copy()
            thumbnail.thumbnail(_THUMBNAIL)
            row["thumbnail"] = str(folder / f"{n}.jpg")
            thumbnail.save(row["thumbnail"], quality=88)
            row["result"] = captioner.inferencer.to_dict(sample) | {"image": row["name"]}
            row["generated"] = row["result"]["caption"]
        yield rows


def unique_names(names: Sequence[str]) -> list[str]:
    """Return names with numbers where several files have the same: ``1.png``, ``1 (2).png``."""
    taken = set(names)
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        unique = name
        while seen[name] > 1 and unique in taken:
            path = Path(name)
            unique = f"{path.stem} ({seen[name]}){path.suffix}"
            seen[name] += unique in taken
        taken.add(unique)
        result.append(unique)
    return result


def write_files(rows: Rows, folder: Path) -> list[str]:
    """Write the results in the formats of ``pcm caption --out``.

    Args:
        rows: Rows of :func:`caption_uploads`. Images that cannot be read are left out.
        folder: An existing folder.

    Returns:
        The files; empty if there are no results.
    """
    results = [row["result"] for row in rows if "result" in row]
    if not results:
        return []
    names = [result["image"] for result in results]
    numbered = zip(results_ids(names, names), results, strict=True)
    records = [{"image_id": image_id, **result} for image_id, result in numbered]
    files = [folder / f"captions{suffix}" for suffix in RECORD_SUFFIXES]
    for file in files:
        write_results(file, records)
    return [str(file) for file in files]


def corrected(row: dict[str, Any], caption: str) -> dict[str, Any]:
    """Return a row with a corrected caption, which replaces those that were generated."""
    result = {key: value for key, value in row["result"].items() if key != "captions"}
    return row | {"result": result | {"caption": caption, "log_prob": None}}
