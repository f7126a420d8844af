"""Web page that captions images, from the options of ``pcm webui``."""

import argparse
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from markupsafe import escape
from PIL import Image

from pcm_plugin.apis import CaptionInferencer
from pcm_plugin.errors import UserError
from pcm_plugin.formats.images.image_io import read_image
from pcm_plugin.models.decoding import DecodingConfig
from pcm_plugin.visualization import draw_mixup
from pcm_plugin.visualization.page import concept_bars, render, style_sheet

# Gradio reads the variable when it is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
try:
    import gradio as gr
except ModuleNotFoundError:
    gr = None  # type: ignore[assignment]

MAX_BEAM_SIZE = 10
LENGTH_PENALTIES = (0, 3)
HOUR = 60 * 60  # seconds


def make_handler(inferencer: CaptionInferencer, uploads: Path) -> Callable[..., Iterator[tuple]]:
    """Return the function that captions an uploaded image with the settings of the page.

    Args:
        inferencer: The captioner.
        uploads: Folder of the uploaded files.
    """

    def handle(
        upload: dict | None,
        beam_size: int,
        num_captions: int,
        min_len: int,
        max_len: int,
        length_penalty: float,
        start: str,
        include: str,
        exclude: str,
        prefix: str,
        suffix: str,
    ) -> Iterator[tuple]:
        # If the image fails, the results of the previous one must not stay on the page.
        yield empty_results()
        if not upload:
            return
        try:
            beam_size = min(int(beam_size), MAX_BEAM_SIZE)
            decoding: dict[str, Any] = {
                "beam_size": beam_size,
                "num_captions": min(int(num_captions), beam_size),
                "min_len": int(min_len),
                "max_len": min(int(max_len), inferencer.model.decoding.max_len),
                "length_penalty": float(length_penalty),
                "start": start.strip(),
                "include": split_phrases(include),
                "exclude": split_phrases(exclude),
                "prefix": prefix,
                "suffix": suffix,
            }
            image = read_upload(upload, uploads)
            _, sample = next(inferencer.stream(image, **decoding))
        except (OSError, UserError) as error:
            message = f"{upload.get('orig_name') or 'The image'} cannot be captioned: {error}"
            raise gr.Error(str(escape(message)), print_exception=False) from error
        entry = inferencer.to_sheet_entry(image, sample)
        yield (
            render("webui_caption.html", caption=entry.caption),
            draw_mixup(entry, inferencer.grid),
            render("webui_concepts.html", concepts=concept_bars(entry)),
            beam_table(inferencer.to_dict(sample)),
        )

    return handle


def split_phrases(text: str) -> list[str]:
    """Return the phrases of a list that is separated by commas."""
    return [phrase.strip() for phrase in text.split(",") if phrase.strip()]


def empty_results() -> tuple[str, None, str, str]:
    """Return the results that the page shows without an image."""
    return render("webui_caption.html", caption=None), None, "", ""


def read_upload(upload: dict, uploads: Path) -> Image.Image:
    """Read an uploaded image.

    Args:
        upload: File data of gradio.
        uploads: Folder that the file must be in.

    Raises:
        UserError: If the file is in another folder or is not an image.
    """
    # A hand-written request may name any file. Gradio 6.17 only checks the folder with
    # preprocess=True.
    path = Path(str(upload.get("path"))).resolve()
    if not path.is_relative_to(uploads.resolve()):
        raise UserError("it was not uploaded to this server")
    # Pass an open file, so that error messages do not contain paths of the server.
    with path.open("rb") as file:
        return read_image(file)


def beam_table(result: dict[str, Any]) -> str:
    """Return the captions of an image as an HTML table, best first."""
    captions = result.get("captions", [result])
    columns = {
        "caption": "caption",
        "log_prob": "log-probability",
        "score": "score",
        "similarity": "similarity",
    }
    columns = {key: head for key, head in columns.items() if key in captions[0]}
    rows = [[caption[key] for key in columns] for caption in captions]
    return render("webui_beam.html", head=list(columns.values()), rows=rows)


def decoding_controls(decoding: DecodingConfig) -> list[Any]:
    """Create the controls of the settings of the search, in the order of the handler's arguments.

    Args:
        decoding: Settings of the model, which are the first values.
    """
    penalties = *LENGTH_PENALTIES, decoding.length_penalty
    return [
        gr.Slider(1, MAX_BEAM_SIZE, decoding.beam_size, step=1, label="Beam size"),
        gr.Slider(
            1,
            MAX_BEAM_SIZE,
            decoding.beam_size,
            step=1,
            label="Number of captions (at most the beam size)",
        ),
        gr.Slider(0, decoding.max_len - 1, decoding.min_len, step=1, label="Minimum words"),
        gr.Slider(
            1,
            decoding.max_len,
            decoding.max_len,
            step=1,
            label="Maximum words (with the stop token)",
        ),
        gr.Slider(
            min(penalties),
            max(penalties),
            decoding.length_penalty,
            step=0.1,
            label="Length penalty (higher values favor longer captions)",
        ),
        gr.Textbox(decoding.start, label="Captions start with", elem_id="start"),
        gr.Textbox(
            ", ".join(decoding.include),
            label="Words to include, separated by commas",
            elem_id="include",
        ),
        gr.Textbox(
            ", ".join(decoding.exclude),
            label="Words to exclude, separated by commas",
            elem_id="exclude",
        ),
        gr.Textbox(decoding.prefix, label="Text before the caption", elem_id="prefix"),
        gr.Textbox(decoding.suffix, label="Text after the caption", elem_id="suffix"),
    ]


def build_page(inferencer: CaptionInferencer, title: str) -> "gr.Blocks":
    """Build the page.

    Args:
        inferencer: The captioner.
        title: Title of the page.
    """
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(HOUR, 24 * HOUR)) as page:
        gr.HTML(render("webui_title.html", title=title))
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                image = gr.Image(
                    label="Image", sources=["upload", "clipboard"], height=330, elem_id="image"
                )
                button = gr.Button("Caption", variant="primary", elem_id="go")
                with gr.Accordion("Advanced", open=False, elem_id="advanced"):
                    controls = decoding_controls(inferencer.model.decoding)
            with gr.Column(scale=3, min_width=300):
                caption = gr.HTML(empty_results()[0], elem_id="caption")
                with gr.Row():
                    mixup = gr.Image(
                        label="Mixed patches",
                        interactive=False,
                        buttons=["download", "fullscreen"],
                        min_width=280,
                        elem_id="mixup",
                    )
                    with gr.Column(min_width=240):
                        concepts = gr.HTML(elem_id="concepts")
                beam = gr.HTML(elem_id="beam")
        gr.on(
            [image.upload, image.clear, button.click],
            make_handler(inferencer, Path(image.GRADIO_CACHE)),
            [image, *controls],
            [caption, mixup, concepts, beam],
            # Gradio has no readable error for an image that it cannot decode.
            preprocess=False,
            # By default an image uploaded during the search for the previous one gets no caption.
            trigger_mode="always_last",
            show_progress_on=mixup,
            api_visibility="private",
        )
    return page


def serve(args: argparse.Namespace) -> None:
    """Serve the page until interrupted.

    Raises:
        UserError: If gradio is not installed, or the port is in use.
    """
    if gr is None:
        raise UserError("`pcm webui` needs gradio: pip install 'pcm-plugin[webui]'")
    inferencer = CaptionInferencer(args.config, args.weights, args.device, show_progress=False)
    page = build_page(inferencer, f"Captions by {Path(args.weights).name}")
    try:
        _, address, _ = page.launch(
            server_name=args.host,
            server_port=args.port,
            share=False,
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono="monospace"),
            css=style_sheet("webui.css"),
            footer_links=[],
        )
    except OSError as error:
        raise UserError(
            f"cannot listen on {args.host}:{args.port}: choose another --host or --port"
        ) from error
    print(f"Serving at {address}", flush=True)
    page.block_thread()
