"""Tab *Folder* of the web page: many images, with progress, correction and download."""

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pcm_plugin.commands.web_captioner import WebCaptioner, upload_name
from pcm_plugin.commands.web_corrections import CorrectionControls
from pcm_plugin.commands.web_gradio import gr, page_error
from pcm_plugin.errors import UserError
from pcm_plugin.formats.caption_results import write_results
from pcm_plugin.formats.image_ids import results_ids
from pcm_plugin.formats.records import RECORD_SUFFIXES
from pcm_plugin.visualization.page import render

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


class FolderTab:
    """Input and results of the tab.

    The constructor creates the input; :meth:`add_results` creates the results in the current
    container.
    """

    def __init__(self) -> None:
        self.folder = gr.File(
            file_count="directory", label="Folder of images", height=140, elem_id="folder"
        )
        self.images = gr.File(file_count="multiple", label="Images", height=140, elem_id="images")
        with gr.Row():
            self.button = gr.Button("Caption all", variant="primary", elem_id="go_all")
            self.cancel = gr.Button("Cancel", elem_id="cancel")

    def add_results(self, captioner: WebCaptioner, corrections: CorrectionControls) -> None:
        """Create the results.

        Args:
            captioner: The captioner.
            corrections: Saves corrected captions.
        """
        self._captioner, self._corrections = captioner, corrections
        self.progress = gr.HTML(_progress([], 0), elem_id="progress")
        heading = "Captions: click an image to correct its caption"
        gr.HTML(render("webui_heading.html", text=heading))
        self.gallery = gr.Gallery(
            show_label=False,
            interactive=False,
            columns=3,
            object_fit="contain",
            height="auto",
            buttons=["fullscreen"],
            elem_id="gallery",
        )
        self.field, self._save, self.note = corrections.create("folder_correction")
        self.files = gr.File(label="Results", interactive=False, elem_id="results")
        self.rows = gr.State([])
        self.selected = gr.State()

    def connect(self, controls: list[Any]) -> None:
        """Caption all images on the button, and handle selection, correction and cancelling.

        Args:
            controls: Controls of the settings of the search.
        """
        run = self.button.click(
            self._handler(),
            [self.folder, self.images, *controls],
            [
                *(self.rows, self.gallery, self.progress, self.files),
                *(self.selected, self.field, self.note),
            ],
            preprocess=False,
            show_progress="hidden",
            api_visibility="private",
        )
        self.cancel.click(
            self._stop,
            [self.rows],
            [self.progress, self.files],
            cancels=[run],
            show_progress="hidden",
            api_visibility="private",
        )
        self.gallery.select(
            self._select,
            [self.rows],
            [self.selected, self.field, self.note],
            show_progress="hidden",
            api_visibility="private",
        )
        self._save.click(
            self._correct,
            [self.rows, self.selected, self.field],
            [self.rows, self.gallery, self.note, self.files],
            show_progress="hidden",
            api_visibility="private",
        )

    def _handler(self) -> Callable[..., Iterator[tuple]]:
        captioner = self._captioner

        def handle(folder: list | None, images: list | None, *values: Any) -> Iterator[tuple]:
            uploads = _each_once([*(folder or []), *(images or [])])
            yield [], [], _progress([], len(uploads)), None, None, "", ""
            if not uploads:
                raise page_error("There are no images: choose a folder or images first")
            rows: Rows = []
            try:
                settings = captioner.settings(*values)
                for batch in caption_uploads(captioner, uploads, settings, self._new_folder()):
                    rows = rows + batch
                    progress = _progress(rows, len(uploads))
                    yield rows, _gallery(rows), progress, gr.skip(), gr.skip(), gr.skip(), ""
            except UserError as error:
                raise page_error(f"The images cannot be captioned: {error}") from error
            files = write_files(rows, self._new_folder())
            yield rows, gr.skip(), gr.skip(), files or None, gr.skip(), gr.skip(), ""

        return handle

    def _new_folder(self) -> Path:
        # In the folder of the uploads, so that gradio deletes the files with them.
        folder = Path(self.gallery.GRADIO_CACHE) / secrets.token_hex(16)
        folder.mkdir(parents=True)
        return folder

    def _stop(self, rows: Rows) -> tuple[str, list[str] | None]:
        return _progress(rows, len(rows), cancelled=True), self._files(rows)

    def _files(self, rows: Rows) -> list[str] | None:
        return write_files(rows, self._new_folder()) or None

    def _select(self, rows: Rows, event: "gr.SelectData") -> tuple[str, str, str]:
        row = [row for row in rows if "result" in row][event.index]
        return row["name"], row["result"]["caption"], ""

    def _correct(self, rows: Rows, selected: str | None, text: str) -> tuple:
        shown = next((row for row in rows if row["name"] == selected and "result" in row), None)
        if shown is None:
            raise page_error("No image is selected: click an image first")
        saved = self._corrections.store(shown, text)
        rows = [corrected(row, saved.caption) if row is shown else row for row in rows]
        return rows, _gallery(rows), self._corrections.note(saved), self._files(rows)


def _each_once(uploads: Sequence[Any]) -> list[Any]:
    """Return the uploads by name, without repetitions of the same content and name."""
    paths = [str(upload.get("path")) if isinstance(upload, dict) else "" for upload in uploads]
    return sorted(dict(zip(paths, uploads, strict=True)).values(), key=upload_name)


def _gallery(rows: Rows) -> list[tuple[str, str]]:
    return [
        (row["thumbnail"], f"{row['name']}: {row['result']['caption']}")
        for row in rows
        if "result" in row
    ]


def _progress(rows: Rows, total: int, cancelled: bool = False) -> str:
    return render(
        "webui_progress.html",
        total=total,
        done=len(rows),
        cancelled=cancelled,
        broken=[row for row in rows if "error" in row],
    )
