"""Example images of the web page."""

import shutil
from pathlib import Path

from pcm_plugin.apis.zoo import weights_by_name
from pcm_plugin.errors import UserError
from pcm_plugin.formats.images.folder import list_images, printable
from pcm_plugin.formats.images.image_io import read_image

MAX_EXAMPLES = 12
_SHOWN_BY_BROWSERS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif")
_NUM_DRAWN = 8


def check_examples(folder: Path) -> list[Path]:
    """Return the example images of a folder, of which the first ``MAX_EXAMPLES`` are read.

    Raises:
        UserError: If it is not a folder with images, or one of the images cannot be read or is of
            a kind that browsers do not show.
    """
    if not folder.is_dir():
        raise UserError(f"--examples must be a folder of images, got {folder}")
    files = [folder / name for name in list_images(folder).files]
    if not files:
        raise UserError(f"--examples must be a folder of images, but {folder} contains none")
    for file in files[:MAX_EXAMPLES]:
        if file.suffix.lower() not in _SHOWN_BY_BROWSERS:
            raise UserError(
                f"--examples: browsers do not show {printable(str(file))}: convert it to JPEG or "
                "PNG"
            )
        read_image(file)
    if len(files) > MAX_EXAMPLES:
        print(f"--examples: the page shows the first {MAX_EXAMPLES} of {len(files):,} images")
    return files[:MAX_EXAMPLES]


def write_examples(weights: str, examples: list[Path], folder: Path) -> list[Path]:
    """Write the example images to a folder.

    Args:
        weights: Weights of the command line. A captioner of the package, which was trained in the
            toy world, has drawings of it as examples.
        examples: Images of ``--examples``, which are copied instead if there are any.
        folder: An existing folder.

    Returns:
        The files, in order; empty if there are no examples.
    """
    if examples:
        # Copies, so that the server gives access to no other file of the folder.
        targets = [folder / f"{n}{file.suffix.lower()}" for n, file in enumerate(examples)]
        return [
            Path(shutil.copyfile(file, target))
            for file, target in zip(examples, targets, strict=True)
        ]
    if weights not in weights_by_name():
        return []
    from pcm_plugin.toyworld.render import render
    from pcm_plugin.toyworld.world import unseen_scenes

    files = [folder / f"{n}.png" for n in range(_NUM_DRAWN)]
    for n, (file, scene) in enumerate(zip(files, unseen_scenes(_NUM_DRAWN), strict=True)):
        render(scene, n).image.save(file)
    return files
