"""Images of a data set whose captions are assigned to photos alone.

No images of the training captions are needed: SynC compares their text features with the features
of the photos. Images are only generated of the captions that are held out for validation, one for
each. ``validation/`` then also contains

- ``captions.jsonl``: the captions for validation;
- ``images/`` and ``store/``: their generated images, and the features of these.
"""

from dataclasses import replace
from pathlib import Path

from pcm_plugin.errors import UserError
from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.captions.lines import write_jsonl
from pcm_plugin.synthesis.extract.extract_features import extract_features
from pcm_plugin.synthesis.extract.open_source import open_source
from pcm_plugin.synthesis.generate.generate_images import generate_images
from pcm_plugin.synthesis.generate.settings import GenerateSettings
from pcm_plugin.synthesis.pipeline.recipes import Recipe
from pcm_plugin.synthesis.pipeline.validation import (
    FOLDER,
    VALIDATION_STORE,
    choose_held_out,
    removable,
)
from pcm_plugin.synthesis.ranks import Rank

VALIDATION_CAPTIONS = f"{FOLDER}/captions.jsonl"
VALIDATION_IMAGES = f"{FOLDER}/images"


def validation_generation(settings: GenerateSettings) -> GenerateSettings:
    """Return the settings of the images for validation: one from each caption itself."""
    return replace(settings, images_per_caption=1, rephrasings=None, unique=False)


def generate_held_out(recipe: Recipe, out: Path, device: str | None, rank: Rank) -> None:
    """Generate images of the captions that are held out, if there are any.

    Args:
        recipe: The recipe.
        out: Folder of the data set, with its corpus.
        device: Device of the pipeline.
        rank: Rank of this process.

    Raises:
        UserError: If other captions were held out before. The message names the folders to remove.
    """
    assert recipe.generate is not None
    captions = list(CaptionFile(out / "corpus" / "captions.jsonl"))
    chosen = [captions[i] for i in choose_held_out(captions, recipe).validation]
    file = out / VALIDATION_CAPTIONS
    if file.is_file() and [*CaptionFile(file)] != chosen:
        raise UserError(
            f"{file} holds other captions than those that are held out now, since captions or "
            f"settings have changed: remove {removable(out)}, and run pcm make-dataset again"
        )
    if not chosen:
        return
    if not file.is_file():
        write_jsonl(chosen, file)  # every process writes the same bytes
    generate_images(
        CaptionFile(file),
        validation_generation(recipe.generate),
        out / VALIDATION_IMAGES,
        recipe.generate_batch,
        device,
        rank=rank,
        offload=recipe.offload,
    )


def extract_held_out(recipe: Recipe, out: Path, device: str | None, rank: Rank) -> None:
    """Extract the features of the images for validation, if there are any."""
    if (out / VALIDATION_CAPTIONS).is_file():
        source = open_source(out / VALIDATION_IMAGES, None, 1)
        store = out / VALIDATION_STORE
        extract_features(source, recipe.extract, store, recipe.extract_batch, device, rank=rank)
