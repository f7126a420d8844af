"""Match generated captions with their references."""

import logging
from collections.abc import Sequence

from pcm_plugin.errors import UserError
from pcm_plugin.evaluation.matching import ImageName
from pcm_plugin.evaluation.references import References
from pcm_plugin.evaluation.scoring import CaptionResult, log
from pcm_plugin.formats.image_ids import name_some

_UNIQUE_IDS = "every image of the data set must have its own id"


class ReferenceMismatchError(UserError):
    """Image ids and references that do not match."""


def match_results(
    results: Sequence[CaptionResult], size: int, references: References | None, partial: bool
) -> tuple[list[CaptionResult], str]:
    """Remove repeated images and add the references of a caption file.

    Args:
        results: Captions, some images possibly twice.
        size: Minimum number of different images.
        references: References that replace those of the results; None to keep them.
        partial: Whether images of ``references`` may lack a caption.

    Returns:
        One result per image, and the reason why the images cannot be scored (``''`` if they can).
        If the ids are not unique, the results are returned unchanged.
    """
    by_image: dict[str, CaptionResult] = {}
    for result in results:
        first = by_image.setdefault(result.image_id, result)
        if first.references != result.references:
            problem = f"image_id={result.image_id!r} has two lists of references: {_UNIQUE_IDS}"
            return [*results], problem
    matched = [*by_image.values()]
    if len(matched) < size:
        problem = f"{size} images have {len(matched)} different image_id: {_UNIQUE_IDS}"
        return [*results], problem
    problem = ""
    if references is not None:
        matched, problem = _add_references(matched, references, partial)
    if not problem and not any(image.references for image in matched):
        ids = name_some(image.image_id for image in matched) or "no images"
        problem = f"no image has a reference: {ids}"
        if references is not None:
            names = name_some(image.image_id for image in references.images)
            problem = f"no image has a reference in {references}: {ids}; ids there are {names}"
    return matched, problem


def _add_references(
    results: list[CaptionResult], references: References, partial: bool
) -> tuple[list[CaptionResult], str]:
    """Add references and their image ids, by which COCO's tools match."""
    names = [ImageName(result.image_id, result.file_name) for result in results]
    try:
        images = references.match(names)
    except UserError as error:
        return results, str(error)
    matched = [
        result
        if image is None
        else result._replace(
            image_id=image.image_id,
            references=image.captions,
            file_name=image.file_name or result.file_name,
        )
        for result, image in zip(results, images, strict=True)
    ]
    missing = references.without_caption(images) if any(images) else []
    if not missing:
        return matched, ""
    text = f"{len(missing):,} images of {references} have no caption: {name_some(missing)}"
    if not partial:
        return matched, f"{text}; set partial=True to score only the others"
    log(f"{text}; only the others are scored", logging.WARNING)
    return matched, ""
