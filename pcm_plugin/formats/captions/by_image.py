"""Captions of a file grouped by image."""

from pcm_plugin.errors import UserError
from pcm_plugin.formats.captions import FORMATS
from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.captions.json_documents import read_items
from pcm_plugin.formats.coco import CocoImage
from pcm_plugin.formats.image_ids import (
    name_some,
    normalize_id,
    refuse_repeated,
    strip_image_suffix,
)


def group_by_image(captions: CaptionFile) -> list[CocoImage]:
    """Return the images of a caption file with all their captions, in the order of the file.

    Image ids are unique. Where an id was made from a file name, and files such as ``x.png`` and
    ``x.jpg`` would share one, these images get their file names as ids.

    Args:
        captions: The file, of any format.

    Returns:
        The images; ``file_name`` is empty where the file does not name it. For a COCO file these
        are its ``images``, including those without captions.

    Raises:
        UserError: If the file cannot be read, images share an id, an annotation belongs to none
            of the ``images``, or some captions name no image while others do.
    """
    if captions.format_name() == FORMATS["coco"].name:
        return _group_coco(captions)
    files_by_id: dict[str, dict[str, list[str]]] = {}
    for caption in captions:
        files = files_by_id.setdefault(caption.image_id, {})
        files.setdefault(caption.file_name or "", []).append(caption.text)
    if files_by_id:
        _refuse_without_image(captions)
    images = [
        CocoImage(image_id if len(files) == 1 else name, name, texts)
        for image_id, files in files_by_id.items()
        for name, texts in _files_of(captions, image_id, files).items()
    ]
    refuse_repeated(
        lambda: (image.image_id for image in images),
        f"{captions.path}: image ids",
        "rename the images, or add a column or field image_id",
    )
    return images


def _refuse_without_image(captions: CaptionFile) -> None:
    """Refuse captions without an image among others, since their ids could be ids of images."""
    report = captions.scan()
    if 0 < report.without_image < report.captions:
        place = f":{report.no_image}" if report.no_image.isdecimal() else f": {report.no_image}"
        raise UserError(
            f"{captions.path}{place}: {report.without_image:,} captions, the first of them here, "
            "name no image, while others do; write the id or file of their image, or remove them"
        )


def _files_of(
    captions: CaptionFile, image_id: str, files: dict[str, list[str]]
) -> dict[str, list[str]]:
    """Return the captions of each file that an image id is used for.

    Several files may share an id only if it was derived from all of their names.
    """
    if len(files) == 1 or all(image_id in _derived_ids(name) for name in files):
        return files
    listed = name_some(name for name in files if name)
    raise UserError(
        f"{captions.path}: image id {image_id!r} is used for several images: {listed}"
        f"{'' if all(files) else ', and for captions without a file'}; image ids must be "
        "unique, so renumber the images if several files were joined"
    )


def _derived_ids(name: str) -> set[str]:
    """Return the ids that caption readers derive from a file name."""
    return {strip_image_suffix(name), strip_image_suffix(name.rpartition("/")[2])}


def _group_coco(captions: CaptionFile) -> list[CocoImage]:
    entries = _coco_entries(captions)
    images = {image_id: CocoImage(image_id, name, []) for image_id, name in entries}
    # The file checks for repeated ids and annotations of unknown images before its first caption.
    for caption in captions:
        image = images.setdefault(caption.image_id, CocoImage(caption.image_id, "", []))
        image.captions.append(caption.text)
    if any(image.captions for image in images.values()):
        _refuse_without_image(captions)
    return [*images.values()]


def _coco_entries(captions: CaptionFile) -> list[tuple[str, str]]:
    """Return id and file name of each of the ``images`` of a COCO file."""
    entries = []
    for index, row in enumerate(read_items(captions.open, "images.item")):
        try:
            entries.append((normalize_id(row["id"]), str(row.get("file_name") or "")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{captions.path}: images[{index}] has no valid id: {error}") from None
    return entries
