"""Opening of a source: what a folder contains, and where its captions come from."""

import os
from pathlib import Path

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import sha256
from pcm_plugin.formats.captions.by_image import group_by_image
from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.coco import CocoImage, all_images
from pcm_plugin.formats.released_annotations import read_released_annotations
from pcm_plugin.formats.vocabulary import Vocabulary
from pcm_plugin.synthesis.extract.sources import GeneratedImages, ImageFolder, Source
from pcm_plugin.synthesis.ranks import Rank


def open_source(
    path: str | os.PathLike,
    captions: CaptionFile | str | os.PathLike | None,
    shard_size: int,
    vocabulary: str | os.PathLike | None = None,
    path_template: str | None = None,
) -> Source:
    """Open a folder of generated images, or of image files with captions.

    Args:
        path: The folder.
        captions: For image files: a caption file that names images, the released annotation
            pickle, or ``'none'`` for all images in the folder without captions. Must be None for
            generated images, which include their captions.
        shard_size: Images per shard, for image files.
        vocabulary: ``vocabulary.txt`` of the annotation pickle. Defaults to None.
        path_template: Path of an image of the annotation pickle, see :func:`released_images`.
            Defaults to None.

    Raises:
        MissingFileError: If the folder or a file is missing.
        UserError: If ``captions`` is required but missing, not applicable, or invalid.
    """
    path = Path(path)
    if not path.is_dir():
        raise MissingFileError(f"no folder of images at {path}")
    if (path / "manifest.json").is_file():
        if captions is not None:
            raise UserError(
                f"{path} contains generated images, which include their captions: leave out "
                "--captions"
            )
        return GeneratedImages(path)
    if captions is None:
        raise UserError(
            f"{path} has no manifest.json of `pcm generate`; if it contains image files, name "
            "their captions with --captions FILE, or pass --captions none"
        )
    if captions == "none":
        images = all_images(path, Rank.from_environment().index == 0)
        return ImageFolder(path, images, shard_size, {"captions": None})
    if not isinstance(captions, CaptionFile) and Path(captions).suffix in (".pkl", ".pickle"):
        if vocabulary is None:
            raise UserError(
                f"{captions} contains word indices: pass the vocabulary.txt of its words too"
            )
        released, scores = released_images(Path(captions), vocabulary, path_template)
        hashes = _input_hashes(captions, vocabulary=vocabulary)
        try:
            return ImageFolder(path, released, shard_size, hashes, scores)
        except FileNotFoundError as error:
            raise MissingFileError(f"{error}; set their paths with --path-template") from None
    file = CaptionFile.of(captions)
    settings = _input_hashes(file.path) | ({} if file.split is None else {"split": file.split})
    return ImageFolder(path, caption_file_images(file), shard_size, settings)


def caption_file_images(captions: CaptionFile) -> list[CocoImage]:
    """Return the image files that a caption file names, with all their captions.

    Raises:
        UserError: If a caption names no image file, or images share an id.
    """
    images = group_by_image(captions)
    unnamed = [image.image_id for image in images if not image.file_name]
    if unnamed:
        raise UserError(
            f"{captions.path}: image {unnamed[0]} has no file name; pass COCO captions JSON, "
            "Karpathy's JSON, a Flickr token file, or a table or JSONL with file_name"
        )
    return images


def released_images(
    annotations: Path, vocabulary: str | os.PathLike, path_template: str | None
) -> tuple[list[CocoImage], dict[str, list[float]]]:
    """Return the images of SynthImgCap, with captions decoded from the released annotations.

    Args:
        annotations: The released pickle; it is read without executing anything in it.
        vocabulary: The ``vocabulary.txt`` that was released with it.
        path_template: Path of an image, with ``{split_id}`` and ``{image_id}``. None for
            ``'{split_id}/{image_id}.jpg'``, or ``'{image_id}.jpg'`` if the annotations have no
            ``split_id``.

    Returns:
        The images, and the CLIP scores of their captions by image id, for those that have scores.

    Raises:
        UserError: If an argument is invalid.
    """
    pairs = read_released_annotations(annotations, Vocabulary.from_file(vocabulary))
    if path_template is None:
        has_parts = pairs[0].split_id is not None
        path_template = "{split_id}/{image_id}.jpg" if has_parts else "{image_id}.jpg"
    images = [CocoImage(p.key, p.format_path(path_template), p.captions) for p in pairs]
    return images, {p.key: p.clip_scores for p in pairs if p.clip_scores is not None}


def _input_hashes(captions: str | os.PathLike, **others: str | os.PathLike) -> dict[str, str]:
    files = {"captions": captions, **others}
    return {name: f"sha256 {sha256(Path(file))[:16]}" for name, file in files.items()}
