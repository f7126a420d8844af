"""The captions of a file, by image."""

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
        The images; ``file_name`` is empty where the file does not say it. Of a COCO file these
        are its ``images``, also those without captions.

    Raises:
        UserError: If the file cannot be read, images share an id, an annotation belongs to none
            of the ``images``, or some captions name no image while others do.
    """
    if captions.form() == FORMATS["coco"].name:
        return _group_coco(captions)
    found: dict[str, dict[str, list[str]]] = {}
    for caption in captions:
        files = found.setdefault(caption.image_id, {})
        files.setdefault(caption.file_name or "", []).append(caption.text)
    if found:
        _refuse_without_image(captions)
    images = [
        CocoImage(image_id if len(files) == 1 else name, name, texts)
        for image_id, files in found.items()
        for name, texts in _files_of(captions, image_id, files).items()
    ]
    refuse_repeated(
        lambda: (image.image_id for image in images),
        f"{captions.path}: image ids",
        "rename the images, or add a column or field image_id",
    )
    return images


def _refuse_without_image(captions: CaptionFile) -> None:
    """Refuse captions without an image among others: their own id may be that of an image."""
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
    """The captions of each file that an image id came with; several only if all gave it its id."""
    if len(files) == 1 or all(image_id in _derived_ids(name) for name in files):
        return files
    listed = name_some(name for name in files if name)
    raise UserError(
        f"{captions.path}: image id {image_id!r} is used for several images: {listed}"
        f"{'' if all(files) else ', and for captions without a file'}; every image needs an id of "
        "its own, so number the images anew if several files were joined"
    )


def _derived_ids(name: str) -> set[str]:
    """The ids that caption readers make from the name of a file."""
    return {strip_image_suffix(name), strip_image_suffix(name.rpartition("/")[2])}


def _group_coco(captions: CaptionFile) -> list[CocoImage]:
    entries = _coco_entries(captions)
    found = {image_id: CocoImage(image_id, name, []) for image_id, name in entries}
    # Before its first caption the file refuses repeated ids, and annotations of unknown images.
    for caption in captions:
        image = found.setdefault(caption.image_id, CocoImage(caption.image_id, "", []))
        image.captions.append(caption.text)
    if any(image.captions for image in found.values()):
        _refuse_without_image(captions)
    return [*found.values()]


def _coco_entries(captions: CaptionFile) -> list[tuple[str, str]]:
    """Id and file name of each of the ``images`` of a COCO file."""
    entries = []
    for index, row in enumerate(read_items(captions.open, "images.item")):
        try:
            entries.append((normalize_id(row["id"]), str(row.get("file_name") or "")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{captions.path}: images[{index}] has no valid id: {error}") from None
    return entries
