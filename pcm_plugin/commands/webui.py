"""Caption images in the browser.

pcm webui pcm-net_toy
pcm webui captioner.safetensors --device cuda:0 --port 8000
pcm webui best.pth --config configs/pcm_coco.py
pcm webui captioner.safetensors --examples photos/ --corrections corrections.jsonl

Prints the address of the page and serves it until interrupted. The weights are a file of
`pcm export`, the name of a model that comes with the package, or a checkpoint with the --config
of its training. Images stay on this machine; they are deleted after a day or when the server stops,
except those of saved corrections. Everyone who can reach --host and --port can use the page.

With --corrections, captions that users correct are added to a file, which `pcm extract` reads, and
their images to a folder of the same name.
"""

import argparse

from pcm_plugin.commands.argument_types import positive_integer
from pcm_plugin.commands.garbage_collection import paused_garbage_collection
from pcm_plugin.commands.web_limits import UploadLimits
from pcm_plugin.errors import plain_errors


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "weights", help="file of `pcm export` or name of a model; a checkpoint with --config"
    )
    parser.add_argument("--config", help="config of a checkpoint: file, or name such as pcm_coco")
    parser.add_argument("--device", help="device, e.g. cuda:0 (default: a GPU if available)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=int, default=7860, help="port to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--examples",
        metavar="FOLDER",
        help="folder of images to click, of which the first 12 are shown (default: drawings, for a "
        "captioner that comes with the package)",
    )
    parser.add_argument(
        "--corrections",
        metavar="FILE",
        help="file NAME.jsonl to which corrected captions are added; their images are copied to "
        "the folder NAME next to it",
    )
    parser.add_argument(
        "--patch-mode",
        help="attention of CLIP's last block for the patches of a point of an image: plain (CLIP's "
        "own), maskclip or sclip (default: that of the captioner)",
    )
    limits = parser.add_argument_group("limits of the uploads")
    limits.add_argument(
        "--max-images",
        type=positive_integer,
        default=UploadLimits.images,
        metavar="N",
        help="files that are captioned at once in the tab Folder (default: %(default)s)",
    )
    limits.add_argument(
        "--max-megabytes",
        type=positive_integer,
        default=UploadLimits.megabytes,
        metavar="N",
        help="size of a file in MB (default: %(default)s)",
    )
    limits.add_argument(
        "--max-megapixels",
        type=positive_integer,
        default=UploadLimits.megapixels,
        metavar="N",
        help="size of an image in million pixels (default: %(default)s)",
    )
    return parser.parse_args()


@plain_errors()
def main() -> None:
    """Run the command."""
    args = parse_args()
    with paused_garbage_collection():
        from pcm_plugin.commands.web_page import serve

    serve(args)
