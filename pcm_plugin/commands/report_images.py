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
    """Return training images, or gray squares and a remark in ``notes`` if they cannot be read.

    Photos without captions, to which captions are assigned, are read from their own folder.
    """
    folder = args.train_images or Path(cfg.get("root", ".")) / "synthetic"
    beside = store.path.parent / "images"  # those for validation, if no others are generated
    if (beside / "manifest.json").is_file():
        folder = beside
    photos = [i for i in rows if not store.captions(i)]
    images = [i for i in rows if store.captions(i)]
    part = 0 if photos else None
    found = _load(store, images, folder, notes, "Training images", "--train-images", part)
    found |= _load(
        store,
        photos,
        find_photo_images(cfg, args),
        notes,
        "Photos among the training images",
        "--photo-images",
        1,
    )
    return [found[i] for i in rows]


def find_photo_images(cfg: Config, args: argparse.Namespace) -> Path | str | None:
    """Return the folder of the photos that are trained on, None if it is unknown."""
    in_config = (cfg.get("photos") or {}).get("images")
    is_folder = args.photos not in (None, True) and not (args.photos / "manifest.json").is_file()
    return args.photo_images or in_config or (args.photos if is_folder else None)


def _load(
    store: FeatureStore,
    rows: list[int],
    folder: Path | str | None,
    notes: list[str],
    what: str,
    option: str,
    part: int | None,
) -> dict[int, Image.Image]:
    if not rows:
        return {}
    try:
        if folder is None:
            raise UserError("the config does not name their folder")
        images = load_images(store, rows, folder, part)
    except (OSError, UserError) as error:
        notes.append(
            f"{what} are replaced by gray squares: {error}. Pass their folder with {option}."
        )
        images = [make_placeholder()] * len(rows)
    return dict(zip(rows, images, strict=True))
