"""Tab *Image* of the web page: one image with captions, concepts and mixed patches."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pcm_plugin.commands.web_captioner import WebCaptioner, beam_table, upload_name
from pcm_plugin.commands.web_corrections import CorrectionControls
from pcm_plugin.commands.web_gradio import gr, page_error
from pcm_plugin.errors import UserError
from pcm_plugin.visualization import draw_mixup
from pcm_plugin.visualization.page import concept_bars, render


def make_handler(captioner: WebCaptioner) -> Callable[..., Iterator[tuple]]:
    """Return the function that captions an uploaded image with the settings of the page.

    It yields the values of caption, mixed patches, concepts, beam, the text to correct and its
    note, and the dict of the image for a correction.
    """

    def handle(upload: dict | None, *values: Any) -> Iterator[tuple]:
        # If the image fails, the results of the previous one must not stay on the page.
        yield empty_results()
        if not upload:
            return
        try:
            settings = captioner.settings(*values)
            image = captioner.read_image(upload)
            [(_, sample)] = captioner.caption([image], settings)
        except (OSError, UserError) as error:
            name = upload.get("orig_name") or "The image"
            raise page_error(f"{name} cannot be captioned: {error}") from error
        inferencer = captioner.inferencer
        entry = inferencer.to_sheet_entry(image, sample)
        yield (
            render("webui_caption.html", caption=entry.caption),
            draw_mixup(entry, inferencer.grid),
            render("webui_concepts.html", concepts=concept_bars(entry)),
            beam_table(inferencer.to_dict(sample)),
            entry.caption,
            "",
            {"upload": upload, "name": upload_name(upload), "generated": entry.caption},
        )

    return handle


def make_point_handler(captioner: WebCaptioner) -> Callable[..., str]:
    """Return the function that captions the point of an uploaded image that was clicked."""

    def handle(event: "gr.SelectData", upload: dict | None, *values: Any) -> str:
        if not upload:
            return point_caption()
        try:
            settings = captioner.settings(*values)
            image = captioner.read_image(upload)
            caption = captioner.caption_point(image, event.index, settings)
        except (OSError, UserError) as error:
            raise page_error(f"The point cannot be captioned: {error}") from error
        return point_caption(caption, event.index)

    return handle


def point_caption(caption: str | None = None, point: Sequence[float] = ()) -> str:
    """Return the caption of a point as HTML, or the hint that is shown without one."""
    return render("webui_point.html", caption=caption, point=point)


def empty_results() -> tuple[str, None, str, str, str, str, None]:
    """Return the results that the page shows without an image."""
    return render("webui_caption.html", caption=None), None, "", "", "", "", None


class ImageTab:
    """Input and results of the tab.

    The constructor creates the input; :meth:`add_results` creates the results in the current
    container.

    Args:
        examples: Example images.
        takes_regions: Whether the captioner can caption a point of the image.
    """

    def __init__(self, examples: list[Path], takes_regions: bool) -> None:
        self.image = gr.Image(
            label="Image", sources=["upload", "clipboard"], height=330, elem_id="image"
        )
        self._point = gr.HTML(point_caption(), elem_id="point") if takes_regions else None
        self.button = gr.Button("Caption", variant="primary", elem_id="go")
        self._paths = [str(path) for path in examples]
        if examples:
            gr.HTML(render("webui_heading.html", text="Examples"))
            # gr.Examples logs errors of its script in the browser.
            self.examples = gr.Gallery(
                self._paths,
                show_label=False,
                interactive=False,
                allow_preview=False,
                columns=4,
                height="auto",
                buttons=[],
                elem_id="examples",
            )

    def add_results(self, captioner: WebCaptioner, corrections: CorrectionControls) -> None:
        """Create the results.

        Args:
            captioner: The captioner.
            corrections: Saves corrected captions.
        """
        self.caption = gr.HTML(empty_results()[0], elem_id="caption")
        with gr.Row():
            self.mixup = gr.Image(
                label="Mixed patches",
                interactive=False,
                buttons=["download", "fullscreen"],
                min_width=280,
                elem_id="mixup",
            )
            with gr.Column(min_width=240):
                self.concepts = gr.HTML(elem_id="concepts")
        self.beam = gr.HTML(elem_id="beam")
        self.shown = gr.State()
        self.correction, save, self.note = corrections.create("correction")
        save.click(
            corrections.save,
            [self.shown, self.correction],
            [self.note],
            api_visibility="private",
        )
        self._captioner = captioner

    def connect(self, controls: list[Any]) -> None:
        """Caption an image on upload, on a click on an example, and on the button.

        Args:
            controls: Controls of the settings of the search.
        """
        handler = make_handler(self._captioner)
        arguments: dict[str, Any] = {
            "inputs": [self.image, *controls],
            "outputs": [
                *(self.caption, self.mixup, self.concepts, self.beam),
                *(self.correction, self.note, self.shown),
            ],
            # Gradio has no readable error for an image that it cannot decode.
            "preprocess": False,
            "show_progress_on": self.mixup,
            "api_visibility": "private",
        }
        gr.on(
            [self.image.upload, self.image.clear, self.button.click],
            handler,
            # By default an image uploaded during the search for the previous one gets no caption.
            trigger_mode="always_last",
            **arguments,
        )
        if self._point is not None:
            self.image.select(
                make_point_handler(self._captioner),
                [self.image, *controls],
                [self._point],
                preprocess=False,
                trigger_mode="always_last",
                api_visibility="private",
            )
            self.image.change(
                point_caption,
                None,
                [self._point],
                show_progress="hidden",
                api_visibility="private",
            )
        if self._paths:
            self.examples.select(
                self._example,
                None,
                [self.image],
                show_progress="hidden",
                api_visibility="private",
            ).then(handler, **arguments)

    def _example(self, event: "gr.SelectData") -> str:
        return self._paths[event.index]
