"""References from a caption file, matched with predictions."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from pcm_plugin.errors import UserError
from pcm_plugin.evaluation.matching import ImageName, match_images
from pcm_plugin.formats.captions.by_image import group_by_image
from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.coco import CocoImage
from pcm_plugin.formats.image_ids import name_some

CaptionSource = CaptionFile | Mapping[str, Any] | str | os.PathLike


def open_captions(file: CaptionSource) -> CaptionFile:
    """Open a caption file.

    Args:
        file: A caption file, which is returned unchanged; a path; or a dict with the arguments of
            :class:`~pcm_plugin.formats.captions.caption_file.CaptionFile`.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If the dict has no path, or keys that are not arguments of CaptionFile.
    """
    if not isinstance(file, Mapping):
        return CaptionFile.of(file)
    names = [field.name for field in fields(CaptionFile) if field.init]
    if "path" not in file or not set(file) <= set(names):
        raise UserError(
            f"a caption file must be a path, or a dict with 'path' and some of {names[1:]}, got "
            f"{dict(file)}"
        )
    return CaptionFile(**file)


class References:
    """References of a caption file by image.

    Args:
        file: A path; a dict of the arguments of
            :class:`~pcm_plugin.formats.captions.caption_file.CaptionFile`, such as
            ``dict(path='refs.csv', column='text')``; or a CaptionFile.
        split: Split of a file that has splits. Defaults to None, which means the split of
            ``file`` or else ``'test'``.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If the file cannot be read, lacks the split, contains no captions, or images
            share an id.
    """

    def __init__(
        self,
        file: CaptionSource,
        split: str | None = None,
    ) -> None:
        captions = open_captions(file)
        split = split or captions.split
        if split is None and captions.has_splits():
            split = "test"
        self.file = replace(captions, split=split)
        self.images = group_by_image(self.file)
        if not any(image.captions for image in self.images):
            raise UserError(f"{self} contains no captions")

    def __str__(self) -> str:
        """Return the file, and its split if it has splits."""
        split = "" if self.file.split is None else f" (split {self.file.split!r})"
        return f"{self.file.path}{split}"

    def match(self, names: Sequence[ImageName]) -> list[CocoImage | None]:
        """Find the image of each prediction; None for images that are not in the file.

        Raises:
            UserError: If a match is not unique; see
                :func:`~pcm_plugin.evaluation.matching.match_images`.
        """
        ours = [ImageName(image.image_id, image.file_name or None) for image in self.images]
        indices = match_images(names, ours)
        return [None if i is None else self.images[i] for i in indices]

    def without_caption(self, matched: Sequence[CocoImage | None]) -> list[str]:
        """Return the ids of the images that have references but no prediction.

        Args:
            matched: Result of :meth:`match`.
        """
        captioned = {image.image_id for image in matched if image is not None}
        return [i.image_id for i in self.images if i.captions and i.image_id not in captioned]

    def describe_gaps(self, names: Sequence[ImageName], matched: Sequence[CocoImage | None]) -> str:
        """Describe predictions without references and references without predictions.

        Args:
            names: The predictions.
            matched: Result of :meth:`match` for them.

        Returns:
            Counts and the first ids. Empty if every prediction has an image in the file and every
            image with references has a prediction. Images without a usable reference, which occur
            in VizWiz, are not counted.
        """
        unknown = [n.image_id for n, image in zip(names, matched, strict=True) if image is None]
        missing = self.without_caption(matched)
        parts = []
        if unknown:
            parts.append(
                f"{len(unknown):,} of {len(names):,} predictions have no reference in {self}: "
                f"{name_some(unknown)}"
            )
        if missing:
            total = sum(bool(image.captions) for image in self.images)
            parts.append(
                f"{len(missing):,} of {total:,} images in {self} have no prediction: "
                f"{name_some(missing)}"
            )
        return "; ".join(parts)
