"""References of images from a caption file, and which predictions they belong to."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pcm_plugin.errors import UserError
from pcm_plugin.evaluation.matching import ImageName, match_images
from pcm_plugin.formats.captions.by_image import group_by_image
from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.coco import CocoImage
from pcm_plugin.formats.image_ids import name_some

CaptionSource = CaptionFile | Mapping[str, Any] | str | os.PathLike


def open_captions(file: CaptionSource) -> CaptionFile:
    """Return a caption file as it is, or the one of a path or of a dict of its arguments.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If the dict has other keys than the arguments of a CaptionFile, or no path.
    """
    if not isinstance(file, Mapping):
        return CaptionFile.of(file)
    known = [field.name for field in fields(CaptionFile) if field.init]
    wrong = [key for key in file if key not in known]
    if wrong or "path" not in file:
        raise UserError(
            f"a caption file must be a path, or a dict with 'path' and some of {known[1:]}, got "
            f"{dict(file)}"
        )
    return CaptionFile(**file)


class References:
    """The references of a caption file by image.

    Args:
        file: A path; a dict of the arguments of
            :class:`~pcm_plugin.formats.captions.caption_file.CaptionFile`, such as
            ``dict(path='refs.csv', column='text')``; or a CaptionFile.
        split: For a file that has splits. Defaults to None: that of ``file``, else ``'test'``.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If it cannot be read, has no such split, no captions, or images share an id.
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
        """The file, and the split if it has any."""
        split = "" if self.file.split is None else f" (split {self.file.split!r})"
        return f"{self.file.path}{split}"

    @property
    def path(self) -> Path:
        """The file."""
        return self.file.path

    def match(self, names: Sequence[ImageName]) -> list[CocoImage | None]:
        """Find the image of each prediction, None for those that the file does not have.

        Raises:
            UserError: If a match is not unique; see
                :func:`~pcm_plugin.evaluation.matching.match_images`.
        """
        known = [ImageName(image.image_id, image.file_name or None) for image in self.images]
        found = match_images(names, known)
        return [None if i is None else self.images[i] for i in found]

    def without_caption(self, matched: Sequence[CocoImage | None]) -> list[str]:
        """Return the ids of the images that have references but no prediction.

        Args:
            matched: What :meth:`match` returned.
        """
        captioned = {image.image_id for image in matched if image is not None}
        return [i.image_id for i in self.images if i.captions and i.image_id not in captioned]

    def describe_gaps(self, names: Sequence[ImageName], matched: Sequence[CocoImage | None]) -> str:
        """Describe what keeps a score from covering all predictions and all references.

        Args:
            names: The predictions.
            matched: What :meth:`match` returned for them.

        Returns:
            Counts and the first ids; empty if every prediction has its image in the file and
            every image with references its prediction. Images of the file that have no usable
            reference, as VizWiz has some, are not gaps.
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
