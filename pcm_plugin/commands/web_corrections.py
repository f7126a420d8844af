"""Correction of captions on the web page."""

from typing import Any

from pcm_plugin.commands.web_captioner import WebCaptioner
from pcm_plugin.commands.web_gradio import gr, page_error
from pcm_plugin.commands.web_limits import check_length
from pcm_plugin.errors import UserError
from pcm_plugin.formats.corrections import CorrectionFile, SavedCorrection
from pcm_plugin.visualization.page import render


class CorrectionControls:
    """Controls that save corrected captions.

    Args:
        captioner: The captioner, which reads the uploaded images.
        file: File of the corrections, or None to disable the controls.
    """

    def __init__(self, captioner: WebCaptioner, file: CorrectionFile | None) -> None:
        self._captioner = captioner
        self._file = file

    @property
    def enabled(self) -> bool:
        """Whether corrections can be saved."""
        return self._file is not None

    def create(self, name: str) -> tuple[Any, Any, Any]:
        """Create a text field, a button and a note in the current container.

        Args:
            name: Id of the field in the page, and prefix of the ids of the other two.
        """
        enabled = self.enabled
        hint = "" if enabled else render("webui_correction.html", hint=True)
        with gr.Row(equal_height=True):
            field = gr.Textbox(
                label="Correct the caption", interactive=enabled, elem_id=name, scale=4
            )
            button = gr.Button(
                "Save", interactive=enabled, elem_id=f"{name}_save", scale=1, min_width=90
            )
        # The note is replaced by results, the hint is not.
        if hint:
            gr.HTML(hint, elem_id=f"{name}_hint")
        note = gr.HTML(elem_id=f"{name}_note", elem_classes="note")
        return field, button, note

    def save(self, shown: dict[str, Any] | None, text: str) -> str:
        """Save the correction of an image, and return the note.

        Args:
            shown: ``upload``, ``name`` and ``generated`` of the image.
            text: The caption.
        """
        return self.note(self.store(shown, text))

    def store(self, shown: dict[str, Any] | None, text: str) -> SavedCorrection:
        """Save the correction of an image. Arguments are those of :meth:`save`.

        Raises:
            gradio.Error: If there is no image, the caption is invalid, or it cannot be written.
        """
        if self._file is None:  # only reached by a hand-written request
            raise page_error("corrections are disabled: start the server with --corrections FILE")
        if not shown:
            raise page_error("There is no image: caption one first")
        try:
            check_length("a corrected caption", text)  # before it is cleaned, which takes time
            data = self._captioner.read(shown["upload"])
            return self._file.save(data, text, shown["generated"], shown["name"])
        except UserError as error:
            raise page_error(f"The correction was not saved: {error}") from error
        except OSError as error:  # its file name is for the server's log
            raise page_error(f"The correction was not saved: {error.strerror}") from error

    def note(self, saved: SavedCorrection) -> str:
        """Return the text below the field after a correction was saved."""
        assert self._file is not None
        return render(
            "webui_correction.html",
            hint=False,
            file=self._file.path.name,
            replaced=saved.replaced,
            unknown=self._captioner.unknown_words(saved.caption),
        )
