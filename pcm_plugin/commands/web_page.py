"""Web page that captions images, from the options of ``pcm webui``."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from pcm_plugin.apis import CaptionInferencer
from pcm_plugin.commands.web_api import make_endpoint, report_arguments
from pcm_plugin.commands.web_captioner import WebCaptioner
from pcm_plugin.commands.web_corrections import CorrectionControls
from pcm_plugin.commands.web_examples import check_examples, write_examples
from pcm_plugin.commands.web_folder_tab import FolderTab
from pcm_plugin.commands.web_gradio import gr
from pcm_plugin.commands.web_image import ImageTab
from pcm_plugin.commands.web_limits import MAX_BEAM_SIZE, UploadLimits
from pcm_plugin.errors import UserError
from pcm_plugin.formats.corrections import CorrectionFile
from pcm_plugin.models.decoding import DecodingConfig
from pcm_plugin.visualization.page import render, style_sheet

LENGTH_PENALTIES = (0, 3)
HOUR = 60 * 60  # seconds


def decoding_controls(decoding: DecodingConfig, unit: str) -> list[Any]:
    """Create the controls of the settings of the search, in the order of the handler's arguments.

    Args:
        decoding: Settings of the model, which are the first values.
        unit: What the length of captions is counted in, such as ``'words'``.
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
        gr.Slider(0, decoding.max_len - 1, decoding.min_len, step=1, label=f"Minimum {unit}"),
        gr.Slider(
            1,
            decoding.max_len,
            decoding.max_len,
            step=1,
            label=f"Maximum {unit} (with the stop token)",
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


def build_page(
    inferencer: CaptionInferencer,
    title: str,
    examples: list[Path],
    corrections: CorrectionFile | None,
    limits: UploadLimits,
) -> "gr.Blocks":
    """Build the page.

    Args:
        inferencer: The captioner.
        title: Title of the page.
        examples: Example images.
        corrections: File of corrected captions; None to disable corrections.
        limits: Limits of the uploads.
    """
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(HOUR, 24 * HOUR)) as page:
        captioner = WebCaptioner(inferencer, Path(page.GRADIO_CACHE), limits)
        correction = CorrectionControls(captioner, corrections)
        gr.HTML(render("webui_title.html", title=title))
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                with gr.Tabs():
                    with gr.Tab("Image", elem_id="image_tab") as image_tab:
                        image = ImageTab(examples, captioner.takes_regions)
                    with gr.Tab("Folder", elem_id="folder_tab") as folder_tab:
                        folder = FolderTab()
                with gr.Accordion("Advanced", open=False, elem_id="advanced"):
                    controls = decoding_controls(inferencer.model.decoding, captioner.unit)
            with gr.Column(scale=3, min_width=300) as image_results:
                image.add_results(captioner, correction)
            with gr.Column(scale=3, min_width=300, visible=False) as folder_results:
                folder.add_results(captioner, correction)
        image.connect(controls)
        folder.connect(controls)
        for tab in (image_tab, folder_tab):
            tab.select(
                lambda is_image=tab is image_tab: (
                    gr.Column(visible=is_image),
                    gr.Column(visible=not is_image),
                ),
                None,
                [image_results, folder_results],
                queue=False,
                show_progress="hidden",
                api_visibility="private",
            )
        gr.api(make_endpoint(captioner), api_name="caption")
    return page


def serve(args: argparse.Namespace) -> None:
    """Serve the page until interrupted.

    Raises:
        UserError: If gradio is not installed, an option is invalid, or the port is in use.
    """
    if gr is None:
        raise UserError("`pcm webui` needs gradio: pip install 'pcm-plugin[webui]'")
    corrections = CorrectionFile(Path(args.corrections)) if args.corrections else None
    images = check_examples(Path(args.examples)) if args.examples else []
    limits = UploadLimits(args.max_images, args.max_megabytes, args.max_megapixels)
    inferencer = CaptionInferencer(
        args.config, args.weights, args.device, show_progress=False, patch_mode=args.patch_mode
    )
    with tempfile.TemporaryDirectory(prefix="pcm-examples-") as folder:
        examples = write_examples(args.weights, images, Path(folder))
        title = f"Captions by {Path(args.weights).name}"
        page = build_page(inferencer, title, examples, corrections, limits)
        launch(page, args.host, args.port, limits.megabytes * 1_000_000)


def launch(page: "gr.Blocks", host: str, port: int, max_bytes: int) -> None:
    """Serve a page until interrupted.

    Args:
        page: The page.
        host: Address to listen on.
        port: Port to listen on.
        max_bytes: Limit of the size of an uploaded file.

    Raises:
        UserError: If the port is in use.
    """
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono="monospace"),
            css=style_sheet("webui.css"),
            footer_links=[],
            max_file_size=max_bytes,
            app_kwargs={"exception_handlers": {TypeError: report_arguments}},
        )
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}:{port}: choose another --host or --port"
        ) from error
    print(f"Serving at {address}", flush=True)
    page.block_thread()
