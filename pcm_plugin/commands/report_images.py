"""Images of the page of ``pcm report``."""

import argparse
from pathlib import Path

from mmengine.config import Config
from PIL import Image

from pcm_plugin.errors import UserError
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.images.image_io import read_image
from pcm_plugin.synthesis.extract.store_images import load_images

MAX_SIZE = (640, 640)
PLACEHOLDER_COLOR = "#9aa3af"


def read_thumbnail(folder: Path | str | None, name: str) -> Image.Image | None:
    """Return an image, scaled down, or None if it cannot be read."""
    if folder is None:
        return None
    try:
        image = read_image(Path(folder) / name)
    except (OSError, UserError):
        return None
    image.thumbnail(MAX_SIZE)
    return image


def make_placeholder() -> Image.Image:
    """Return a gray square."""
    return Image.new("RGB", (320, 320), PLACEHOLDER_COLOR)


def read_training_images(
    cfg: Config, args: argparse.Namespace, store: FeatureStore, rows: list[int], notes: list[str]
) -> list[Image.Image]:
    """Return training images, or gray squares and a remark in ``notes`` if they cannot be read."""
    folder = args.train_images or Path(cfg.get("root", ".")) / "synthetic"
    try:
        return load_images(store, rows, folder)
    except (OSError, UserError) as error:
        notes.append(
            f"Training images are replaced by gray squares: {error}. Pass their folder with "
            "--train-images."
        )
        return [make_placeholder()] * len(rows)
