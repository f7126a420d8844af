"""Checks of the stages, and of a folder that exists, before a data set is made."""

from collections.abc import Sequence
from pathlib import Path

from pcm_plugin.errors import UserError
from pcm_plugin.formats.feature_store import is_caption_store
from pcm_plugin.synthesis.pipeline.photos import PHOTO_STORE, check_pool
from pcm_plugin.synthesis.pipeline.recipes import Recipe
from pcm_plugin.synthesis.pipeline.validation import FOLDER, PAIRS_FOLDER
from pcm_plugin.synthesis.refine.assignment import Among
from pcm_plugin.synthesis.refine.pairs import check_among


def check_stages(stages: Sequence[str] | None, recipe: Recipe) -> Sequence[str]:
    """Return the stages to run, all by default.

    Raises:
        UserError: If the recipe has no such stage.
    """
    for stage in stages or ():
        if stage not in recipe.stages:
            what = "has no photos" if recipe.generate else "encodes captions alone"
            fix = "--photos FOLDER" if recipe.generate else "a recipe that generates images"
            raise UserError(
                f"stages must be among {', '.join(recipe.stages)} for this recipe, which {what}, "
                f"got {stage}: leave it out, or pass {fix}"
            )
    return recipe.stages if stages is None else stages


def check_folder(recipe: Recipe, out: Path) -> None:
    """Check that a folder was not made by a recipe of another kind.

    Recipes generate images of all captions, assign all captions to photos, or encode captions
    alone.

    Raises:
        UserError: If it was.
    """
    begun = [n for n in ("synthetic", "train_store") if (out / n / "manifest.json").is_file()]
    has_captions = is_caption_store(out / "train_store")
    was_alone = has_captions and (out / PHOTO_STORE / "manifest.json").is_file()
    made = [out / name for name in ("train_store", "assign_store", FOLDER, PAIRS_FOLDER)]
    removable = " and ".join(str(folder) for folder in made if folder.exists())
    if recipe.generate is None and begun and not has_captions:
        raise UserError(
            f"{out} was made by a recipe that generates images, but this one encodes captions "
            "alone: pass another --out, or the recipe that made the folder"
        )
    if was_alone and not recipe.photos_alone:
        raise UserError(
            f"{out} was made with photos.images=photos, without images of its captions: pass "
            f"--photos and --set photos.images=photos, or another --out, or remove {removable}"
        )
    if recipe.generate is not None and has_captions and not recipe.photos_alone:
        raise UserError(
            f"{out} was made by a recipe that encodes captions alone, but this one generates "
            "images: pass another --out, or the recipe that made the folder"
        )
    if recipe.photos_alone and "train_store" in begun and not has_captions:
        raise UserError(
            f"{out} has generated images of all captions, but photos.images=photos needs none: set "
            f"photos.images=all, pass another --out, or remove {removable}"
        )


def check_pairs(recipe: Recipe, out: Path, among: Among | None) -> None:
    """Check that existing pairs were chosen among what is trained on.

    Args:
        recipe: The recipe.
        out: Folder of the data set.
        among: Images and captions of ``train_store`` that are trained on; None for all.

    Raises:
        UserError: If not.
    """
    if recipe.photos is not None:
        check_pool(recipe, out, among)
    else:
        check_among(out / PAIRS_FOLDER, among)
