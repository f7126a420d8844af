"""Tab *Folder* of the web page: many images, with progress, correction and download."""

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pcm_plugin.commands.web_captioner import WebCaptioner, upload_name
from pcm_plugin.commands.web_corrections import CorrectionControls
from pcm_plugin.commands.web_folder import Rows, caption_uploads, corrected, write_files
from pcm_plugin.commands.web_gradio import gr, page_error
from pcm_plugin.errors import UserError
from pcm_plugin.visualization.page import render

MAX_RUNS = 4
"""Number of runs that caption their batches in turn. The next ones wait."""


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
            self.cancel = gr.Button("Cancel", interactive=False, elem_id="cancel")

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
        self.cancelled = gr.State()
        self.rows = gr.State([])
        self.selected = gr.State()

    def connect(self, controls: list[Any]) -> None:
        """Caption all images on the button, and handle selection, correction and cancelling.

        While a run is active, only the run changes the results: Cancel asks it to stop, and
        corrections cannot be saved.

        Args:
            controls: Controls of the settings of the search.
        """
        self.button.click(
            self._handler(),
            [self.folder, self.images, *controls],
            [
                *(self.rows, self.gallery, self.progress, self.files),
                *(self.selected, self.field, self.note),
                *(self.cancelled, self.button, self.cancel, self._save),
            ],
            preprocess=False,
            show_progress="hidden",
            concurrency_limit=MAX_RUNS,
            api_visibility="private",
        )
        # Not `cancels` of gradio: updates of the run would arrive after those of Cancel.
        self.cancel.click(
            self._stop,
            [self.cancelled],
            [self.cancel],
            queue=False,
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

    def _handler(self) -> Callable[..., Iterator[dict]]:
        def handle(folder: list | None, images: list | None, *values: Any) -> Iterator[dict]:
            uploads = _each_once([*(folder or []), *(images or [])])
            cancelled = threading.Event()
            yield {
                self.rows: [],
                self.gallery: [],
                self.progress: _progress([], len(uploads)),
                self.files: None,
                self.selected: None,
                self.field: "",
                self.note: "",
                self.cancelled: cancelled,
                **self._buttons(running=True),
            }
            try:
                if not uploads:
                    raise page_error("There are no images: choose a folder or images first")
                self._captioner.limits.check_count(len(uploads))
                yield from self._run(uploads, self._captioner.settings(*values), cancelled)
            except UserError as error:
                yield self._buttons(running=False)
                raise page_error(f"The images cannot be captioned: {error}") from error
            except Exception:
                yield self._buttons(running=False)
                raise

        return handle

    def _run(
        self, uploads: Sequence[Any], settings: dict[str, Any], cancelled: threading.Event
    ) -> Iterator[dict]:
        rows: Rows = []
        for batch in caption_uploads(self._captioner, uploads, settings, self._new_folder()):
            rows = rows + batch
            progress = _progress(rows, len(uploads))
            yield {self.rows: rows, self.gallery: _gallery(rows), self.progress: progress}
            if cancelled.is_set():
                break
        progress = _progress(rows, len(uploads), cancelled=len(rows) < len(uploads))
        files = self._files(rows)
        yield {self.progress: progress, self.files: files, **self._buttons(running=False)}

    def _buttons(self, running: bool) -> dict[Any, Any]:
        return {
            self.button: gr.Button(interactive=not running),
            self.cancel: gr.Button(interactive=running),
            self._save: gr.Button(interactive=not running and self._corrections.enabled),
        }

    def _new_folder(self) -> Path:
        # In the folder of the uploads, so that gradio deletes the files with them.
        folder = Path(self.gallery.GRADIO_CACHE) / secrets.token_hex(16)
        folder.mkdir(parents=True)
        return folder

    def _stop(self, cancelled: threading.Event | None) -> Any:
        if cancelled is not None:  # only None in a hand-written request
            cancelled.set()
        return gr.Button(interactive=False)

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
