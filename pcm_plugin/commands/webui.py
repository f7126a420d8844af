"""Caption images in the browser.

python tools/webui.py pcm-net_toy
python tools/webui.py captioner.safetensors --device cuda:0 --port 8000
python tools/webui.py best.pth --config configs/pcm_coco.py

Prints the page's address and serves it until interrupted. The weights are a file of
tools/export.py, the name of a model that comes with the package, or a checkpoint with the --config
of its training. Nothing is sent anywhere: images stay on this machine and are removed when they are
a day old or the server ends. Whoever reaches --host and --port may use the page.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from pcm_plugin.apis import CaptionInferencer
from pcm_plugin.errors import UserError, plain_errors
from pcm_plugin.formats.images.image_io import read_image
from pcm_plugin.visualization import draw_mixup
from pcm_plugin.visualization.page import concept_bars, escape, table

# Gradio reads it as it is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
try:
    import gradio as gr
except ModuleNotFoundError:
    gr = None  # type: ignore[assignment]

MOST_BEAMS = 10
DAY = 24 * 60 * 60
NOTHING = ('<p class="hint">Drop an image to see its caption.</p>', None, "", "")
STYLE = """
h1 { font-size: 1.4rem; font-weight: 600; margin: .2em 0; }
#caption p { font-size: 1.9rem; line-height: 1.25; font-weight: 600; margin: .1em 0 .4em; }
#caption p.hint { font-weight: 400; color: var(--body-text-color-subdued); }
h2 { font-size: 1rem; font-weight: 600; margin: 0 0 .6em; }
.bar { display: grid; grid-template-columns: 7em 1fr 3.2em; gap: 10px; align-items: center;
  margin: .35em 0; overflow-wrap: anywhere; }
.bar > span:last-child { text-align: right; color: var(--body-text-color-subdued); }
.bar i { display: block; height: 12px; border-radius: 3px; background: var(--border-color-primary);
  overflow: hidden; }
.bar b { display: block; height: 100%; }
#beam table { width: 100%; border-collapse: collapse; }
#beam :is(table, tr) { border: 0; }
#beam :is(td, th) { padding: 5px 0; text-align: left; border: solid var(--border-color-primary);
  border-width: 0 0 1px; }
#beam th { font-weight: 400; color: var(--body-text-color-subdued); }
#beam :is(td, th):not(:first-child) { text-align: right; width: 9em; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
#image img { width: 100%; height: 100%; object-fit: contain; }
"""


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", help="captioner's file or name; or a checkpoint, with --config")
    parser.add_argument("--config", help="config of the training, for a checkpoint")
    parser.add_argument("--device", help="e.g. cuda:0; default: a GPU if there is one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=int, default=7860)
    return parser.parse_args()


def captioning(inferencer: CaptionInferencer, uploads: Path) -> Callable[..., Iterator[tuple]]:
    """What the page does with an image and its controls.

    Args:
        inferencer: Captions it.
        uploads: The folder that uploads are in.
    """

    def show(upload: dict | None, beams: int, captions: int, fewest: int) -> Iterator[tuple]:
        # An image that fails must not stand beside the caption of the one before.
        yield NOTHING
        if not upload:
            return
        try:
            beams = min(int(beams), MOST_BEAMS)
            search = {"beam_size": beams, "num_captions": min(int(captions), beams)}
            image = read_upload(upload, uploads)
            _, sample = next(inferencer.stream(image, min_len=int(fewest), **search))
        except (OSError, ValueError, RuntimeError) as error:
            message = f"{upload.get('orig_name') or 'This image'} gets no caption: {error}"
            raise gr.Error(escape(message), print_exception=False) from error
        entry = inferencer.to_sheet_entry(image, sample)
        mix = draw_mixup(entry, inferencer.grid)
        caption = f"<p>{escape(entry.caption)}</p>"
        concepts = concept_bars(entry)
        concepts = f"<h2>Concepts found</h2>{concepts}" if concepts else ""
        yield caption, mix, concepts, beam_table(inferencer.to_dict(sample))

    return show


def read_upload(upload: dict, uploads: Path) -> Image.Image:
    """The image of an upload.

    Args:
        upload: What gradio says of it.
        uploads: The folder that it must be in.

    Raises:
        UserError: If it is elsewhere, or no image.
    """
    # A request written by hand may name any file: gradio 6.17 checks its folder only if asked to.
    path = Path(str(upload.get("path"))).resolve()
    if not path.is_relative_to(uploads.resolve()):
        raise UserError("it was not uploaded here")
    # Open, so that errors name no file of the server.
    with path.open("rb") as file:
        return read_image(file)


def beam_table(found: dict[str, Any]) -> str:
    """HTML of an image's captions, the best first."""
    captions = found.get("captions", [found])
    columns = {"caption": "caption", "log_prob": "log-probability", "similarity": "similarity"}
    shown = {key: head for key, head in columns.items() if key in captions[0]}
    rows = [[caption[key] for key in shown] for caption in captions]
    return "<h2>Captions of the beam</h2>" + table(list(shown.values()), rows)


def build_page(inferencer: CaptionInferencer, title: str) -> "gr.Blocks":
    """The page.

    Args:
        inferencer: Captions what is dropped.
        title: Of the page.
    """
    decoding = inferencer.model.decoding
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(60 * 60, DAY)) as page:
        gr.HTML(f"<h1>{escape(title)}</h1>")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                image = gr.Image(
                    label="Image", sources=["upload", "clipboard"], height=330, elem_id="image"
                )
                button = gr.Button("Caption", variant="primary", elem_id="go")
                beams = gr.Slider(1, MOST_BEAMS, decoding.beam_size, step=1, label="Beam size")
                captions = gr.Slider(
                    1, MOST_BEAMS, decoding.beam_size, step=1, label="Captions, at most one a beam"
                )
                fewest = gr.Slider(
                    0, decoding.max_len - 1, decoding.min_len, step=1, label="Fewest words"
                )
            with gr.Column(scale=3, min_width=300):
                caption = gr.HTML(NOTHING[0], elem_id="caption")
                with gr.Row():
                    mix = gr.Image(
                        label="Mixed patches",
                        interactive=False,
                        buttons=["download", "fullscreen"],
                        min_width=280,
                        elem_id="mix",
                    )
                    with gr.Column(min_width=240):
                        concepts = gr.HTML(elem_id="concepts")
                beam = gr.HTML(elem_id="beam")
        gr.on(
            [image.upload, image.clear, button.click],
            captioning(inferencer, Path(image.GRADIO_CACHE)),
            [image, beams, captions, fewest],
            [caption, mix, concepts, beam],
            # Gradio's own reading of an image has no readable error for a broken one.
            preprocess=False,
            # A second image during the first one's search would get no captions otherwise.
            trigger_mode="always_last",
            show_progress_on=mix,
            api_visibility="private",
        )
    return page


@plain_errors()
def main() -> None:
    """Run the command."""
    args = parse_args()
    if gr is None:
        raise UserError("the web page needs gradio: pip install 'pcm_plugin[webui]'")
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
            css=STYLE,
            footer_links=[],
        )
    except OSError as error:
        raise UserError(
            f"cannot listen on {args.host}:{args.port}: choose another --host or --port"
        ) from error
    print(f"the page is at {address}", flush=True)
    page.block_thread()
